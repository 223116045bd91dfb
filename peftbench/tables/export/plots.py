"""Plots of a table as PNG and SVG, drawn by matplotlib."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.files import atomic_write, make_folder
from peftbench.tables.export.plot_data import (
    CEILING,
    COLORS,
    COSTS,
    Curve,
    Point,
    Scatter,
    column,
    curves,
    intervals,
    scatter,
    tuning_curves,
)
from peftbench.tables.export.plot_labels import place_labels
from peftbench.tables.export.texts import printable_texts
from peftbench.tables.table import Table, heading

if TYPE_CHECKING:  # matplotlib takes half a second to import, and only what draws needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# with 7 colours: 42 looks
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.")
# of scripts that matplotlib's own font lacks, on Linux, macOS and Windows; those that a machine has are taken
_OTHER_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Yu Gothic",
    "Microsoft YaHei",
)


def save_plots(table: Table, folder: Path, kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write the plots into `folder` (made if need be) and return their paths: the same table, the same bytes.

    `score-by-share`, `score-by-latency`, `learning-curves`, `tuning-curves` and `score-intervals`, each once per kind;
    one that has no data is not written. Raises UserError where the system refuses the write.
    """
    table = printable_texts(table)
    drawings: dict[str, Callable[[], Figure]] = {}
    for key in COSTS:
        data = scatter(table, key)
        if data.points:
            drawings[f"score-by-{key}"] = partial(_draw_scatter, table, data)
    if found := curves(table):
        what = "on validation: mean over the runs, band from lowest to highest"
        drawings["learning-curves"] = partial(_draw_curves, table, found, what, "Epoch")
    if tuned := tuning_curves(table):
        what = "on validation: expected best of k random trials"
        drawings["tuning-curves"] = partial(_draw_curves, table, tuned, what, "Trials k")
    if points := intervals(table):
        drawings["score-intervals"] = partial(_draw_intervals, table, points)

    make_folder(folder)
    paths = []
    with plot_style():
        for name, draw in drawings.items():
            figure = draw()
            for kind in kinds:
                paths.append(folder / f"{name}.{kind}")
                write_figure(figure, paths[-1])
    return paths


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw inside the block as all plots are drawn: a user's own matplotlibrc changes nothing."""
    import matplotlib
    from matplotlib.font_manager import get_font_names

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # such a letter is drawn as a box
        matplotlib.rcdefaults()
        installed = [font for font in _OTHER_FONTS if font in get_font_names()]
        matplotlib.rcParams.update({"svg.hashsalt": "peftbench", "font.size": 9.5})
        matplotlib.rcParams["font.family"] = ["DejaVu Sans", *installed]
        yield


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's name ends with: the same figure, the same bytes."""
    content = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    with atomic_write(path, binary=True) as file:
        file.write(content.getvalue())


def _draw_scatter(table: Table, data: Scatter) -> Figure:
    figure, axes = _frame(
        table, f"{data.score.title} with intervals against {data.cost.title.lower()}; dashed: Pareto front"
    )
    front = [data.points[index] for index in data.front]
    at = [data.position(point.cost) for point in front]
    # A staircase: the best score that can be had at this cost or less.
    axes.step(at, [point.score for point in front], where="post", color="#808080", linestyle="--", linewidth=1)
    for point in data.points:
        axes.errorbar(
            data.position(point.cost),
            point.score,
            xerr=[[point.cost - point.cost_low], [point.cost_high - point.cost]],
            yerr=[[point.score - point.score_low], [point.score_high - point.score]],
            color=COLORS[point.row % len(COLORS)],
            marker=MARKERS[point.row % len(MARKERS)],
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.5,
            capsize=3,
            linewidth=1.2,
            zorder=3,
        )
    low, high = data.shown
    margin = 0.05 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)
    if data.ceiling is not None:
        axes.axhline(data.ceiling, color="#808080", linestyle=":", linewidth=1)
        axes.annotate(
            CEILING,
            (0, data.ceiling),
            (4, -4),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color="#606060",
        )
    if data.log:
        _log_axis(axes, data)
    axes.margins(x=0.12, y=0.12)
    axes.set(xlabel=heading(data.cost), ylabel=heading(data.score))
    _label_points(figure, axes, data)
    return figure


def _draw_curves(table: Table, found: list[Curve], what: str, xlabel: str) -> Figure:
    from matplotlib.ticker import MaxNLocator

    score = column(table, table.primary)
    figure, axes = _frame(table, f"{score.title} {what}")
    for curve in found:
        color = COLORS[curve.row % len(COLORS)]
        epochs, mean, low, high, _ = zip(*curve.epochs, strict=True)
        axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(
            epochs,
            mean,
            color=color,
            linestyle=DASHES[curve.row // len(COLORS) % len(DASHES)],
            marker=MARKERS[curve.row % len(MARKERS)],
            markersize=5,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=xlabel, ylabel=heading(score))
    legend = figure.legend(
        axes.lines, [curve.label for curve in found], loc="outside lower left", ncols=2, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _draw_intervals(table: Table, points: list[Point]) -> Figure:
    score = column(table, table.primary)
    figure, axes = _frame(table, f"{score.title} with intervals, best first", height=1.4 + 0.22 * len(points))
    places = range(len(points))
    ends = [[p.score - p.score_low for p in points], [p.score_high - p.score for p in points]]
    axes.errorbar([p.score for p in points], places, xerr=ends, fmt="o", color=COLORS[0], capsize=3, linewidth=1.2)
    axes.set_yticks(places, [p.label for p in points], parse_math=False)
    axes.margins(y=0.5 / len(points))
    axes.invert_yaxis()
    axes.set(xlabel=heading(score))
    return figure


def _frame(table: Table, subtitle: str, height: float = 5) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    of = f"{table.model}, {table.task}. " if table.model else ""
    axes.set_title(f"{table.title}\n{of}{subtitle}", loc="left", fontsize=9.5, parse_math=False)
    return figure, axes


def _log_axis(axes: Axes, data: Scatter) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    positions = [data.position(point.cost) for point in data.points]
    decades = math.log10(max(positions) / min(positions))
    ticks = LogLocator(subs=(1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 3 else (1.0,))
    values = [float(tick) for tick in ticks.tick_values(min(positions), max(positions))]
    if data.zero is not None:
        values = [data.zero, *(tick for tick in values if tick > 1.5 * data.zero)]
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: "0" if tick == data.zero else f"{tick:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _label_points(figure: Figure, axes: Axes, data: Scatter) -> None:
    from matplotlib.patheffects import withStroke

    # The layout must be settled before labels are placed in it, and stay so.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    anchors, taken, texts = [], [], []
    for point in data.points:
        x, y = axes.transData.transform((data.position(point.cost), point.score))
        _, low = axes.transData.transform((data.position(point.cost), point.score_low))
        _, high = axes.transData.transform((data.position(point.cost), point.score_high))
        anchors.append((float(x), float(y)))
        taken += [(x - 9, y - 9, x + 9, y + 9), (x - 5, low, x + 5, high)]
        text = axes.annotate(
            point.label,
            (data.position(point.cost), point.score),
            (0, 0),
            textcoords="offset points",
            fontsize=8.5,
            parse_math=False,
            zorder=4,
        )
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        texts.append(text)
    sizes = [(box.width, box.height) for box in (text.get_window_extent() for text in texts)]
    left, bottom, right, top = axes.get_window_extent().extents
    corners = place_labels(anchors, sizes, taken, (left, bottom, right, top))
    for text, (x, y), (left, bottom), (width, height) in zip(texts, anchors, corners, sizes, strict=True):
        # Points, not pixels: SVG counts 72 of them to the inch, whatever the figure's own resolution.
        text.xyann = ((left - x) * 72 / figure.dpi, (bottom - y) * 72 / figure.dpi)
        near = (min(max(x, left), left + width), min(max(y, bottom), bottom + height))
        if math.dist(near, (x, y)) > 25:
            ends = axes.transData.inverted().transform([(x, y), near])
            axes.plot(*ends.T, color="#808080", linewidth=0.6, scalex=False, scaley=False)

"""Plots of a table: score against cost with the Pareto front, and learning curves; as data, PNG and SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.files import atomic_write, make_folder
from peftbench.tables.table import Cell, Column, Row, Table, heading

if TYPE_CHECKING:  # matplotlib takes half a second to import, and only what draws needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours without black and yellow, which vanish on dark and on white; 7 × 6 markers: 42 looks.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#808080")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.")
COSTS = ("share", "latency")

Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Point:
    """A row in a plot of score against cost: `row` counts the table's rows from 0, the rest is in column units."""

    row: int
    label: str
    cost: float
    score: float
    cost_sd: float | None
    score_sd: float | None


@dataclass(frozen=True)
class Scatter:
    """Score against one cost.

    Attributes:
        cost, score: the columns of the two axes.
        points: rows that have both figures, in the table's order. front: indices into them, by rising cost.
        log: whether the cost axis is logarithmic. zero: the cost at which that axis shows a cost of 0, if any.
    """

    cost: Column
    score: Column
    points: list[Point]
    front: list[int]
    log: bool
    zero: float | None

    def position(self, cost: float) -> float:
        """Return where on the cost axis `cost` lies, which differs for a 0 on a logarithmic axis only."""
        return cost if cost > 0 or self.zero is None else self.zero


@dataclass(frozen=True)
class Curve:
    """A row's learning curve: (epoch, mean, lowest, highest, runs), over the used runs that reached the epoch."""

    row: int
    label: str
    epochs: list[tuple[int, float, float, float, int]]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which (cost, score) points no other beats, by rising cost.

    A point is beaten by one that costs no more and scores no less, and is better in at least one of the two;
    equal points are both kept.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def scatter(table: Table, key: str) -> Scatter:
    """Collect score against the cost `key` from the rows that have both figures."""
    points = []
    for index, row in enumerate(table.rows):
        cost, score = _figure(row, key), _figure(row, table.primary)
        if cost is not None and score is not None:
            points.append(Point(index, row.label, cost[0], score[0], cost[1], score[1]))
    above = [point.cost for point in points if point.cost > 0]
    log = bool(above) and max(above) > 10 * min(above) and min(point.cost for point in points) >= 0
    return Scatter(
        cost=column(table, key),
        score=column(table, table.primary),
        points=points,
        front=pareto_front([(point.cost, point.score) for point in points]),
        log=log,
        zero=min(above) / 4 if log and len(above) < len(points) else None,
    )


def curves(table: Table) -> list[Curve]:
    """Collect the learning curves of the rows that have any: the primary validation metric in its column's unit."""
    factor = 100 if column(table, table.primary).unit == "%" else 1
    found = []
    for index, row in enumerate(table.rows):
        scores: dict[int, list[float]] = {}
        for run in row.runs:
            # A resumed run may tell an epoch twice: the later entry stands.
            history = {entry["epoch"]: entry.get("validation", {}).get(table.primary) for entry in run.history}
            for epoch, score in history.items() if run.used else ():
                if score is not None and math.isfinite(score):
                    scores.setdefault(epoch, []).append(factor * score)
        if scores:
            epochs = [(epoch, sum(of) / len(of), min(of), max(of), len(of)) for epoch, of in sorted(scores.items())]
            found.append(Curve(index, row.label, epochs))
    return found


def column(table: Table, key: str) -> Column:
    """Return the column of that key, or a bare one of that name where the table has none."""
    return next((column for column in [*table.all_columns, *table.columns] if column.key == key), Column(key, key))


def _figure(row: Row, key: str) -> tuple[float, float | None] | None:
    cell = row.cells.get(key, Cell())
    if cell.value is None or not math.isfinite(cell.value):
        return None
    return cell.value, cell.sd if cell.sd is not None and math.isfinite(cell.sd) else None


def save_plots(table: Table, folder: Path, kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write the plots into `folder` (made if need be) and return their paths: the same table, the same bytes.

    `score-by-share`, `score-by-latency` and `learning-curves`, each once per kind; one that has no data is not
    written. Raises UserError where the system refuses the write.
    """
    import matplotlib

    drawings: dict[str, Callable[[], Figure]] = {}
    for key in COSTS:
        data = scatter(table, key)
        if data.points:
            drawings[f"score-by-{key}"] = partial(_draw_scatter, table, data)
    if found := curves(table):
        drawings["learning-curves"] = partial(_draw_curves, table, found)

    make_folder(folder)
    paths = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own matplotlibrc changes nothing
        matplotlib.rcParams.update({"svg.hashsalt": "peftbench", "font.size": 9.5})
        for name, draw in drawings.items():
            figure = draw()
            for kind in kinds:
                content = io.BytesIO()
                figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
                path = folder / f"{name}.{kind}"
                with atomic_write(path, binary=True) as file:
                    file.write(content.getvalue())
                paths.append(path)
    return paths


def _draw_scatter(table: Table, data: Scatter) -> Figure:
    figure, axes = _frame(table, f"{data.score.title} against {data.cost.title.lower()}; dashed: Pareto front")
    front = [data.points[index] for index in data.front]
    at = [data.position(point.cost) for point in front]
    # A staircase: the best score that can be had at this cost or less.
    axes.step(at, [point.score for point in front], where="post", color="#808080", linestyle="--", linewidth=1)
    for point in data.points:
        axes.errorbar(
            data.position(point.cost),
            point.score,
            xerr=point.cost_sd,
            yerr=point.score_sd,
            color=COLORS[point.row % len(COLORS)],
            marker=MARKERS[point.row % len(MARKERS)],
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.5,
            capsize=3,
            linewidth=1.2,
            zorder=3,
        )
    if data.log:
        _log_axis(axes, data)
    axes.margins(x=0.12, y=0.12)
    axes.set(xlabel=heading(data.cost), ylabel=heading(data.score))
    _label_points(figure, axes, data)
    return figure


def _draw_curves(table: Table, found: list[Curve]) -> Figure:
    from matplotlib.ticker import MaxNLocator

    score = column(table, table.primary)
    figure, axes = _frame(table, f"{score.title} on validation: mean over the runs, band from lowest to highest")
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
    axes.set(xlabel="Epoch", ylabel=heading(score))
    legend = figure.legend(
        axes.lines, [curve.label for curve in found], loc="outside lower left", ncols=2, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _frame(table: Table, subtitle: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(
        f"{table.title}\n{table.model}, {table.task}. {subtitle}", loc="left", fontsize=9.5, parse_math=False
    )
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
        _, low = axes.transData.transform((data.position(point.cost), point.score - (point.score_sd or 0)))
        anchors.append((float(x), float(y)))
        taken += [(x - 9, y - 9, x + 9, y + 9), (x - 5, low, x + 5, 2 * y - low)]
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


def place_labels(
    anchors: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], taken: Sequence[Box], bounds: Box
) -> list[tuple[float, float]]:
    """Choose each label's lower left corner near its anchor, where it covers least; all in one unit of length.

    Args:
        anchors: (x, y) of the points. sizes: (width, height) of their labels.
        taken: what labels should not cover. bounds: where they should stay inside.
    """
    occupied, corners = list(taken), []
    for (x, y), (width, height) in zip(anchors, sizes, strict=True):
        choices = []
        for distance in (13, 30, 55, 85):
            for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
                left = x + right * distance - width * (1 - right) / 2
                bottom = y + up * distance - height * (1 - up) / 2
                box = (left, bottom, left + width, bottom + height)
                outside = width * height - _overlap(box, bounds)
                choices.append((sum(_overlap(box, other) for other in occupied) + 4 * outside + distance, box))
        best = min(choices)[1]
        occupied.append(best)
        corners.append(best[:2])
    return corners


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    return max(0.0, width) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))

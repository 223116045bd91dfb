"""A heat map: a share between 0 and 1 for each row and column, on the terminal and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.color import Color
from rich.style import Style
from rich.table import Table
from rich.text import Text

from peftbench.tables.export.plot_data import COLORS
from peftbench.tables.export.plots import plot_style, write_figure
from peftbench.tables.export.texts import printable_texts

_DARKEST = COLORS[0]


@dataclass(frozen=True)
class HeatMap:
    """What is shown: `shares` has a list for each of `rows`, with one share for each of `columns`."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    shares: Sequence[Sequence[float]]


def to_terminal(heat_map: HeatMap) -> Table:
    """Return it as a table whose cells are the darker the larger their share."""
    heat_map = printable_texts(heat_map)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(Text(heat_map.title))
    for name in heat_map.columns:
        table.add_column(Text(name), justify="right")
    for name, shares in zip(heat_map.rows, heat_map.shares, strict=True):
        table.add_row(Text(name), *(Text(f" {share:.2f} ", _shade(share)) for share in shares))
    return table


def _shade(share: float) -> Style:
    red, green, blue = (255 - share * (255 - channel) for channel in Color.parse(_DARKEST).get_truecolor())
    return Style(color="white" if share > 0.7 else "black", bgcolor=Color.from_rgb(red, green, blue))


def save_heat_map(heat_map: HeatMap, path: Path) -> None:
    """Draw it into `path`, .svg or .png; raises UserError where the system refuses the write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    heat_map = printable_texts(heat_map)
    with plot_style():
        size = (3 + 0.8 * len(heat_map.columns), 1.5 + 0.3 * len(heat_map.rows))
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        colors = LinearSegmentedColormap.from_list("shares", ["white", _DARKEST])
        axes.imshow(heat_map.shares, cmap=colors, vmin=0, vmax=1, aspect="auto")
        axes.set_title(heat_map.title, loc="left", fontsize=9.5, parse_math=False)
        axes.set_xticks(range(len(heat_map.columns)), heat_map.columns, rotation=30, ha="right", parse_math=False)
        axes.set_yticks(range(len(heat_map.rows)), heat_map.rows, parse_math=False)
        for row, shares in enumerate(heat_map.shares):
            for column, share in enumerate(shares):
                color = "white" if share > 0.7 else "black"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=color, fontsize=8)
        write_figure(figure, path)

"""A plan on the terminal, and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from peftbench.tables.export.plot_data import COLORS
from peftbench.tables.export.plots import plot_style, write_figure
from peftbench.tables.export.texts import printable_texts
from peftbench.tables.plan import Plan
from peftbench.tables.verdicts import Needs, points
from peftbench.terminal import format_duration

_HEADINGS = (
    "seeds of each row",
    "difference told, points",
    "hardest pair",
    "equal shown within ±",
    "runs to train",
    "takes here",
)


def to_terminal(plan: Plan, title: str, sources: Sequence[str]) -> RenderableType:
    """Return what rich prints; `sources` say what is measured and what assumed."""
    title, sources = printable_texts(title), [printable_texts(line) for line in sources]
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in _HEADINGS:
        shown.add_column(heading, justify="right")
    for outlook in plan.outlooks:
        # scores are within 100 points
        figures = [
            f"{figure:.1f}" if figure < 100 else "–" for figure in (outlook.typical, outlook.hardest, outlook.equal)
        ]
        takes = "–" if outlook.seconds is None else format_duration(outlook.seconds)
        shown.add_row(f"{outlook.seeds:,}", *figures, f"{outlook.runs:,}", takes)
    reading = (
        "difference told: a true difference that is told from 0 with a chance of 80 %, of the median pair of rows",
        f"equal shown within ±: rows of equal truth are shown not to differ by more, likewise; {_together(plan)}",
    )
    lines = [Text(line, "dim") for line in (*reading, *sources)]
    return Group(Text(title, "bold"), "", shown, "", Text(conclusion(plan)), "", *lines)


def conclusion(plan: Plan) -> str:
    """Say what it takes to tell a difference of δ."""
    typical, hardest = (_takes(need, plan) for need in (plan.typical, plan.hardest))
    text = f"To tell {points(plan.delta)}: {typical}"
    return f"{text}." if typical == hardest else f"{text} for the median pair; {hardest} for the hardest."


def _takes(need: Needs, plan: Plan) -> str:
    if need.seeds is None:
        few = f"no number of seeds does on {plan.examples:,} examples"
        return few if need.examples is None else f"{few}, it takes about {int(float(f'{need.examples:.2g}')):,}"
    (outlook,) = (outlook for outlook in plan.outlooks if outlook.seeds == need.seeds)
    if not outlook.runs:
        return f"{need.seeds:,} seeds of each row, which there are"
    more = f"{outlook.runs:,} runs more" if plan.rows * need.seeds > outlook.runs else f"{outlook.runs:,} runs"
    takes = "" if outlook.seconds is None else f", {format_duration(outlook.seconds)} here"
    return f"about {need.seeds:,} seeds of each row ({more}{takes})"


def _together(plan: Plan) -> str:
    pairs = plan.rows * (plan.rows - 1) // 2
    return f"95 % for all {pairs} pairs together" if pairs > 1 else "95 %"


def save_plot(plan: Plan, title: str, path: Path) -> None:
    """Draw differences by seeds into `path`, .svg or .png; raises UserError where the system refuses the write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    with plot_style():
        figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.7)
        seeds = [outlook.seeds for outlook in plan.outlooks]
        for color, name, figures in (
            (COLORS[0], "told from 0, median pair", [outlook.typical for outlook in plan.outlooks]),
            (COLORS[1], "told from 0, hardest pair", [outlook.hardest for outlook in plan.outlooks]),
            (COLORS[2], "equal rows shown within ±, median pair", [outlook.equal for outlook in plan.outlooks]),
        ):
            axes.plot(seeds, figures, color=color, marker="o", label=name)
        axes.axhline(plan.delta, color="#808080", linestyle="--", linewidth=1, label=f"δ = {points(plan.delta)}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(seeds))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes.set(xlabel="seeds of each row", ylabel="difference, points (chance of 80 %)")
        axes.set_title(printable_texts(title), loc="left", fontsize=9.5, parse_math=False)
        axes.legend(frameon=False)
        write_figure(figure, path)

"""What the spread of a table's rows comes from, on the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from peftbench.tables.export.texts import printable_texts
from peftbench.tables.spread import SOURCES, Deviation, SpreadSources

_TITLES = {"init": "initialisation", "order": "order of batches", "dropout": "dropout"}
_READING = (
    "standard deviations of the score in points (95 % interval, where scores are not all equal): of runs that differ in"
    " one source of chance alone, of runs that differ in all (seed), and of one run over other examples",
)


def to_terminal(spreads: Sequence[SpreadSources], metric: str, split: str) -> RenderableType:
    """Return what rich prints."""
    shown = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    shown.add_column("")
    for title in (*(_TITLES[source] for source in SOURCES), "all at once", "examples"):
        shown.add_column(title, justify="right")
    for spread in spreads:
        cells = [_text(spread.sources[source]) for source in SOURCES] + [_text(spread.all_at_once)]
        cells.append("–" if spread.examples is None else f"{spread.examples:.2f}")
        shown.add_row(Text(printable_texts(spread.label)), *cells)
    head = f"What the spread comes from: {metric} on {split}"
    return Group(Text(head, "bold"), "", shown, "", *(Text(line, "dim") for line in _READING))


def _text(deviation: Deviation) -> str:
    if deviation.value is None:
        return "–"
    interval = "" if deviation.low is None else f" ({deviation.low:.2f} … {deviation.high:.2f})"
    return f"{deviation.value:.2f}{interval}, {deviation.runs} runs"

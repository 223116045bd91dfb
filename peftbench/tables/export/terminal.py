"""A table on the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text as RichText

from peftbench.tables.export.grid import Text, claims, lay_out, published, subtitle, verdicts
from peftbench.tables.export.texts import printable_texts
from peftbench.tables.export.tuning import TITLE, tuning_grid
from peftbench.tables.table import Table

_VERDICTS = {"holds": "green", "does not hold": "red"}


def to_terminal(table: Table) -> RenderableType:
    """Return what rich prints: the figures, the claims with their verdicts, the notes."""
    table = printable_texts(table)
    grid = lay_out(table)
    shown = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(grid.headings):
        shown.add_column(RichText(title), justify="left" if number == 0 else "right", overflow="fold")
    for row in grid.rows:
        shown.add_row(*map(_styled, row))
    parts: list[RenderableType] = [RichText(table.title, "bold"), RichText(subtitle(table), "dim"), "", shown]
    if table.conclusion:
        parts += ["", RichText(table.conclusion)]
    if lines := verdicts(table):
        parts += ["", RichText(f"against {table.baseline}", "bold"), *map(RichText, lines)]
    if table.claims:
        parts += ["", RichText("claims", "bold"), _claims(table)]
    if table.tuning:
        parts += ["", RichText(TITLE, "bold"), _tuning(table)]
    if lines := published(table):
        parts += ["", RichText("published", "bold"), *map(RichText, lines)]
    return Group(*parts, "", *(RichText(note, "dim") for note in (*grid.reading, *grid.notes)))


def _styled(text: Text) -> RichText:
    return RichText(text.text, "bold" if text.bold else "dim" if text.quiet else "")


def _tuning(table: Table) -> RichTable:
    headings, rows = tuning_grid(table)
    shown = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in headings:
        left = title in (headings[0], headings[-1])
        shown.add_column(RichText(title), justify="left" if left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*map(RichText, row))
    return shown


def _claims(table: Table) -> RichTable:
    shown = RichTable(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for claim, measured, verdict in claims(table):
        shown.add_row(RichText(claim), RichText(measured), RichText(verdict, _VERDICTS.get(verdict, "yellow")))
    return shown

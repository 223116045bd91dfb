"""A table as a grid of texts: what the terminal, Markdown and LaTeX all show, each in its own notation."""

from typing import NamedTuple

from peftbench.tables.table import Row, Table, format_cell, heading
from peftbench.tables.verdicts import (
    BETTER,
    LOWER,
    OPEN,
    SAME,
    bound,
    examples_that_would_decide,
    points,
    what_would_decide,
)


class Text(NamedTuple):
    """What stands in one place of the grid."""

    text: str
    bold: bool = False
    quiet: bool = False


class Grid(NamedTuple):
    """Headings and rows of one length, the first column the row's label; how to read them, and what is missing."""

    headings: list[str]
    rows: list[list[Text]]
    reading: list[str]
    notes: list[str]


# rows that a line of verdicts names; the files with all pairs have the others
_MOST_NAMED = 12
_MARKS = {"holds": " ✓", "does not hold": " ✗", "cannot be told": " ?"}
_LEGEND = "the lab's figure: ✓ agrees with the measured interval, ✗ does not, ? cannot be told from so few examples"


def lay_out(table: Table) -> Grid:
    """Lay a table out: a column a figure, and behind it the lab's with its verdict where any row has one."""
    headings = [""]
    rows = [[Text(row.label)] for row in table.rows]
    with_groups = any(row.group for row in table.rows)
    for column in table.columns:
        if column.key == "p_best" and with_groups:
            headings.append("group")
            for row, line in zip(table.rows, rows, strict=True):
                line.append(Text(row.group))
        headings.append(heading(column))
        with_lab = any(row.cells[column.key].lab is not None for row in table.rows if column.key in row.cells)
        if with_lab:
            headings.append("the lab")
        for row, line in zip(table.rows, rows, strict=True):
            cell = row.cells.get(column.key)
            line.append(Text(format_cell(cell, column) if cell else "–", bold=bool(cell and cell.differs)))
            if with_lab:
                line.append(_lab(cell.lab if cell else None, cell.verdict if cell else None))
    if any(reasons := [missing_runs(row) for row in table.rows]):
        headings.append("runs")
        for reason, line in zip(reasons, rows, strict=True):
            line.append(Text(reason, quiet=True))
    return Grid(headings, rows, [*([_LEGEND] if "the lab" in headings else []), *table.reading], table.notes)


def missing_runs(row: Row) -> str:
    """Say which of a row's runs its figures lack, empty where they have all: `2 missing, 1 oom`."""
    statuses = [run.status for run in row.runs if not run.used]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def subtitle(table: Table) -> str:
    """Return what the table is of, in one line."""
    examples = f", n = {table.examples:,} examples of {table.evaluation}" if table.examples else ""
    seeds = f"{len(table.seeds)} seed{'s' if len(table.seeds) > 1 else ''}"
    of = [f"{kind} {name}" for kind, name in (("model", table.model), ("task", table.task)) if name]
    return f"{', '.join([*of, seeds])}{examples}"


def published(table: Table) -> list[str]:
    """Return the literature's figures, one line each."""
    return [
        f"{row.label}, {column.title}: {cell.published}"
        for row in table.rows
        for column in table.all_columns
        if (cell := row.cells.get(column.key)) and cell.published
    ]


def verdicts(table: Table) -> list[str]:
    """Say of every row what it is to the baseline, a line for each of the verdicts that there are."""
    pairs = [row.against for row in table.rows if row.against is not None]
    by_verdict = {
        "better": [f"{pair.row} by {bound(pair.low)}" for pair in pairs if pair.verdict == BETTER],
        "lower": [f"{pair.row} by {bound(pair.high)}" for pair in pairs if pair.verdict == LOWER],
        f"not different by more than {points(table.delta)}": [pair.row for pair in pairs if pair.verdict == SAME],
        OPEN: [
            f"{pair.row} ({what_would_decide(pair)})"
            for pair in pairs
            if pair.verdict == OPEN and examples_that_would_decide(pair) is None
        ],
        f"{OPEN} by any number of seeds on these examples (on how many it could be)": [
            f"{pair.row} (about {examples:,})"
            for pair in pairs
            if pair.verdict == OPEN and (examples := examples_that_would_decide(pair)) is not None
        ],
    }
    return [f"{verdict}: {_first(rows)}" for verdict, rows in by_verdict.items() if rows]


def _first(rows: list[str]) -> str:
    rest = len(rows) - _MOST_NAMED
    return "; ".join(rows if rest < 2 else [*rows[:_MOST_NAMED], f"and {rest} others"])


def claims(table: Table) -> list[list[str]]:
    """Return the lab's claims as lines of claim, measured, verdict."""
    return [
        [claim.text, claim.measured or "–", f"{claim.verdict}: {claim.needs}" if claim.needs else claim.verdict]
        for claim in table.claims
    ]


def _lab(figure: float | None, verdict: str | None) -> Text:
    if figure is None:
        return Text("")
    text = f"{figure:g}".replace("-", "−")
    return Text(text + _MARKS.get(verdict or "", ""), quiet=True)

"""A table as CSV: one line a row and column, everything a program may want of it."""

import csv
import io
from typing import Any

from peftbench.tables.export.texts import printable_texts
from peftbench.tables.table import Table
from peftbench.tables.verdicts import in_words

FIELDS = (
    "row",
    "column",
    "unit",
    "value",
    "sd",
    "n",
    "low",
    "high",
    "differs",
    "lab",
    "verdict",
    "published",
    "group",
    "against_baseline",
    "runs",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_csv(table: Table) -> str:
    """Return the CSV's text: every figure there is, shown or not; `runs` are the ids it is made from.

    `group` and `against_baseline` are of the row, in each of its lines: its tie groups, and the verdict on its score.

    A text that a spreadsheet would take for a formula, for it begins with = + - @ or a tab, gets an apostrophe in
    front, as OWASP advises ("CSV injection"). Numbers stay numbers.
    """
    table = printable_texts(table)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in table.rows:
        against = in_words(row.against, table.delta) if row.against else None
        of_row = [row.group, against, " ".join(run.id for run in row.runs if run.used)]
        for column in table.all_columns:
            if (cell := row.cells.get(column.key)) is not None:
                interval = [cell.low, cell.high, cell.differs]
                beside = [cell.lab, cell.verdict, cell.published]
                figures = [cell.value, cell.sd, cell.n, *interval, *beside]
                writer.writerow(map(_safe, [row.label, column.key, column.unit, *figures, *of_row]))
    return file.getvalue()


def _safe(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell

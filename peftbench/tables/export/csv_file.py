"""A table as CSV: one line a row and column, everything a program may want of it."""

import csv
import io

from peftbench.tables.table import Table

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
    "runs",
)


def to_csv(table: Table) -> str:
    """Return the CSV's text: every figure there is, shown or not; `runs` are the ids it is made from."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in table.rows:
        used = " ".join(run.id for run in row.runs if run.used)
        for column in table.all_columns:
            if (cell := row.cells.get(column.key)) is not None:
                interval = [cell.low, cell.high, cell.differs]
                beside = [cell.lab, cell.verdict, cell.published]
                writer.writerow(
                    [row.label, column.key, column.unit, cell.value, cell.sd, cell.n, *interval, *beside, used]
                )
    return file.getvalue()

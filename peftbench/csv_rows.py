"""CSV that is read as it was written: Python before 3.12 leaves a carriage return unquoted, where readers end a row."""

import csv
from collections.abc import Iterable, Sequence
from typing import IO, Any


def write_rows(file: IO[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows that end in a line feed, all cells quoted in those that hold a carriage return."""
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in row) else plain).writerow(row)

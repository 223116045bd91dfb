"""Which character stands between the cells of a CSV file."""

import csv
import io
from collections.abc import Sequence

DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_CHARACTERS = 2**16
_SAMPLE_ROWS = 100


def find_delimiter(text: str, choices: Sequence[Sequence[str]]) -> str:
    """Return the delimiter that gives the header the columns sought, or else the rows the most even width.

    Args:
        text: of the file, the header first.
        choices: sets of column names, one of which the header should hold.
    """
    return max(DELIMITERS, key=lambda delimiter: _evidence(text, delimiter, choices))  # of equals the first


def _evidence(text: str, delimiter: str, choices: Sequence[Sequence[str]]) -> tuple[bool, float, int]:
    """Return whether the columns are there, the share of rows as wide as the header, and its width."""
    rows = _sample(text, delimiter)
    header = [name.strip() for name in rows[0]] if rows else []
    if len(header) < 2:
        return False, 0.0, 0
    even = sum(len(row) == len(header) for row in rows) / len(rows)
    return any(set(names) <= set(header) for names in choices), even, len(header)


def _sample(text: str, delimiter: str) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text[:_SAMPLE_CHARACTERS], newline=""), delimiter=delimiter):
            if row:
                rows.append(row)
            if len(rows) == _SAMPLE_ROWS:
                return rows
    except csv.Error:  # the reader of the whole file names the row
        pass
    # the sample may end within its last row
    return rows[:-1] if len(text) > _SAMPLE_CHARACTERS and len(rows) > 1 else rows

"""Rows of a CSV, TSV or JSONL file, with every fault named by file, line and column."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.errors import UserError, nearest
from peftbench.files import is_there, is_unicode, parse_json
from peftbench.tasks.text.delimiter import find_delimiter

_ROWS_NAMED = 5  # of many faulty rows
_REMEDY = "Name the columns with task.text and task.label"


@dataclass(frozen=True)
class Rows:
    """Chosen columns of a file or of a hub split; the labels' column comes last.

    Attributes:
        origin: the file or split. unit: what its rows are numbered by.
        items: number and cells of each row.
        faults: what the user should know of the columns, a line each.
    """

    origin: str
    items: list[tuple[int, tuple[str, ...]]]
    unit: str = "line"
    faults: tuple[str, ...] = ()

    def at(self, *numbers: int) -> str:
        """Return where rows stand, as errors name them."""
        shown = ", ".join(map(str, numbers[:_ROWS_NAMED]))
        more = f" and {len(numbers) - _ROWS_NAMED:,} more" if len(numbers) > _ROWS_NAMED else ""
        return f"{self.origin}, {self.unit}{'s' if len(numbers) > 1 else ''} {shown}{more}"


def read_columns(path: Path, columns: Sequence[str], *fallbacks: Sequence[str]) -> Rows:
    """Return the cells of `columns`, or of the first of `fallbacks` that the file has complete.

    Args:
        path: `.csv` (quoted as csv does, with commas, semicolons, tabs or pipes between the cells), `.tsv` (never
            quoted) or `.jsonl` (an object a line), UTF-8 with or without a byte order mark, the first two with a
            header.
        columns: names of the columns to read.
        fallbacks: other sets of names, tried in turn.

    Raises:
        UserError: no such file, empty, not UTF-8, a missing column, a row of another length.
    """
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: cannot tell the format; name the file {', '.join(READERS)}")
    if is_there(path) and not is_there(path, Path.is_file):
        raise UserError(
            f"cannot read {path}: it is {'a folder' if is_there(path, Path.is_dir) else 'a pipe or device'}, not a file"
        )
    choices = [columns, *fallbacks]
    cells, repeated = READERS[path.suffix.lower()](path, read_text(path), choices)
    items = list(cells)
    if not items:
        raise UserError(f"{path}: only a header, no rows; give a file with examples")
    faults = [f"{path}: there is more than one column {name!r}; the first is used" for name in repeated]
    if path.suffix.lower() == ".tsv" and (quoted := sum(any(map(_is_quoted, row)) for _, row in items)):
        faults.append(
            f"{path}: {quoted:,} rows have cells in quotes, which stay as they are in a .tsv: name the file .csv, whose"
            " quotes are read, tabs or not"
        )
    return Rows(str(path), items, faults=tuple(faults))


def _is_quoted(cell: str) -> bool:
    """Tell a cell that table programs have put into quotes, for it has quotes inside, which they double."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text without its byte order mark; UserError where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        data = error.object  # the decoder's own view, without the byte order mark
        line_start = data.rfind(b"\n", 0, error.start) + 1
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}, byte {error.start - line_start + 1}: not UTF-8 "
            f"(0x{data[error.start]:02x}); save the file as UTF-8"
        ) from None
    if not text.strip():
        raise UserError(f"{path}: the file is empty; give a file with examples")
    return text


def tsv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of every line, none for a blank one; a quote is a character like any other."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        line = line.removesuffix("\r")
        yield number, line.split("\t") if line else []


Choices = Sequence[Sequence[str]]


class Table(NamedTuple):
    """A file with a header: its columns, the line they stand in, and (line number, cells) of each row.

    Cells are text, or whatever a JSONL file holds.
    """

    columns: list[str]
    line: int
    rows: Iterator[tuple[int, list[Any]]]


def read_table(path: Path, text: str, choices: Choices) -> Table:
    """Read a CSV or TSV file; a blank line is a row without cells.

    Raises UserError, also while the rows are walked, for faulty quotes and for a row of another length.
    """
    if path.suffix.lower() == ".tsv":
        records = tsv_records(text)
    else:
        records = _csv_records(path, text, find_delimiter(text, choices))
    line, names = next((number, cells) for number, cells in records if cells)
    header = [name.strip() for name in names]

    def rows() -> Iterator[tuple[int, list[str]]]:
        for number, cells in records:
            if cells and len(cells) != len(header):
                raise UserError(
                    f"{path}, line {number}: {len(cells)} cells where the header has {len(header)} "
                    f"({', '.join(header)}); correct this row"
                )
            yield number, cells

    return Table(header, line, rows())


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(
        max(csv.field_size_limit(), len(text) + 1)
    )  # a text may be longer than the 128 KiB that Python allows
    spaced = f"{delimiter} " in text.lstrip().split("\n", 1)[0]  # a quote behind the space opens a cell then
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, skipinitialspace=spaced)
    start = 1
    try:
        for cells in reader:
            yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: {error}; check the quotes of this row") from None


def _read_delimited(path: Path, text: str, choices: Choices) -> "Selected":
    header, line, rows = read_table(path, text, choices)
    names = choose_columns(f"{path}, line {line}", choices, header)
    places = [header.index(name) for name in names]
    cells = ((number, tuple(row[place] for place in places)) for number, row in rows if row)
    return cells, [name for name in names if header.count(name) > 1]


def _read_jsonl(path: Path, text: str, choices: Choices) -> "Selected":
    return _json_cells(path, text, choices), []


def _json_cells(path: Path, text: str, choices: Choices) -> Iterator[tuple[int, tuple[str, ...]]]:
    names: Sequence[str] | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = json_object(where, line)
        names = choose_columns(where, choices if names is None else [names], list(row))
        *texts, label = names
        yield number, (*(json_text(where, name, row[name]) for name in texts), _json_cell(where, label, row[label]))


def json_object(where: str, line: str) -> dict[str, Any]:
    """Parse one line of a JSONL file; UserError, which begins with `where`, for anything but an object of texts."""
    try:
        row = parse_json(line, twice=False)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); write one JSON object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; write one JSON object a line")
    if "\\u" in line and not is_unicode(json.dumps(row, ensure_ascii=False)):
        raise UserError(f"{where}: \\u escapes half of a surrogate pair, which is no character; correct this row")
    return row


def json_text(where: str, name: str, value: Any) -> str:
    """Return the text of a JSONL file's cell; UserError, which begins with `where`, for what is none, nor a number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _no_text(where, name, value)
    return _json_cell(where, name, value)


def _json_cell(where: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise _no_text(where, name, value)


def _no_text(where: str, name: str, value: Any) -> UserError:
    return UserError(f"{where}, column {name!r}: {json.dumps(value)[:40]} is neither text nor a number")


def choose_columns(where: str, choices: Choices, found: list[str], remedy: str = _REMEDY) -> Sequence[str]:
    """Return the first of `choices` whose names are all among `found`.

    Raises UserError, with the nearest and what to do, the `remedy`, where there is none.
    """
    for names in choices:
        if all(name in found for name in names):
            return names
    missing = next(name for name in choices[0] if name not in found)
    raise UserError(
        f"{where}: no column {missing!r} among {', '.join(map(repr, found))}. {_nearest_column(missing, found)}{remedy}"
    )


def _nearest_column(missing: str, found: list[str]) -> str:
    hint = nearest(missing, found)
    return f"{hint} " if hint.startswith("Did you mean") else ""  # all columns are in the message already


# (line number, chosen cells) of each row; and the chosen columns whose name the header has more than once
Selected = tuple[Iterator[tuple[int, tuple[str, ...]]], list[str]]
Reader = Callable[[Path, str, Choices], Selected]
READERS: dict[str, Reader] = {".csv": _read_delimited, ".tsv": _read_delimited, ".jsonl": _read_jsonl}

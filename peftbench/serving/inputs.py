"""The texts to answer: from the command line, a file, or standard input; row by row, blank ones too."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.errors import UserError
from peftbench.files import expanded, is_unicode
from peftbench.serving.task_names import no_task
from peftbench.tasks.text.files import Table, choose_columns, json_object, json_text, read_table, read_text

# files with named columns; any other holds one text (or pair) a line
TABLES = (".csv", ".tsv", ".jsonl")
_TASK = "task"
_GLUE_COLUMNS = {1: ["sentence"], 2: ["sentence1", "sentence2"]}


class InputRow(NamedTuple):
    """One row of the input: where it stands, its text or texts, all of its cells as they are, and whose it is."""

    number: int
    texts: tuple[str, ...]
    cells: list[str]
    task: str | None = None

    @property
    def blank(self) -> bool:
        """Whether it has a text that is empty, and so no answer."""
        return not all(self.texts)


class Input(NamedTuple):
    """The header of the input and its rows, in order."""

    columns: list[str]
    rows: Iterator[InputRow]


def read_input(texts: list[str], file: Path | None, columns: list[str], as_glue: bool = True) -> Input:
    """Return the input: `texts` of the command line, `file`, or else standard input.

    Args:
        columns: names of the task's text columns, one or two. as_glue: whether a file may call them as GLUE does.

    Raises UserError, also while the rows are walked, for texts that are missing, too many or too few for the task,
    or not UTF-8.
    """
    if texts and file is not None:
        raise UserError("give text on the line or with --file, not both")
    if texts:
        return Input(columns, _from_words(texts, len(columns)))
    if file is None:
        return Input(columns, _with_text(_from_lines(_standard_input(), "standard input", len(columns)), None))
    path = expanded(file)
    if path.suffix.lower() not in TABLES:
        rows = _from_lines(read_text(path).removesuffix("\n").split("\n"), str(path), len(columns))
        return Input(columns, _with_text(rows, path))
    table = _from_table(path, [columns, *([_GLUE_COLUMNS[len(columns)]] if as_glue else [])])
    return Input(table.columns, _with_text(table.rows, path))


def _with_text(rows: Iterator[InputRow], path: Path | None) -> Iterator[InputRow]:
    """Yield the rows; raises UserError where none of them has a text."""
    none = True
    for row in rows:
        none = none and row.blank
        yield row
    if none:
        raise UserError(f"{path or 'standard input'} holds no text: give one a line")


def _from_words(texts: list[str], width: int) -> Iterator[InputRow]:
    if len(texts) % width:
        raise UserError(f"this run's task is made of pairs of texts: give two, not {len(texts)}")
    for position, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError(f"text {position} is empty")
        if not is_unicode(text):
            raise UserError(f"text {position} is not UTF-8: {text[:60]!r}")
    return (_row(start // width + 1, texts[start : start + width]) for start in range(0, len(texts), width))


def _from_lines(lines: Iterable[str], origin: str, width: int) -> Iterator[InputRow]:
    for number, line in enumerate(lines, start=1):
        texts = [line] if width == 1 else line.split("\t")
        if not line.strip():
            texts = [""] * width
        if len(texts) != width:
            raise UserError(
                f"{origin}, line {number}: this run's task is made of pairs of texts: write two with a tab"
                f" between them, not {len(texts)}"
            )
        yield _row(number, texts)


def _row(number: int, texts: Sequence[str]) -> InputRow:
    cells = [text.strip() for text in texts]
    return InputRow(number, tuple(cells), cells)


def _standard_input() -> Iterator[str]:
    if sys.stdin.isatty():
        print("reading standard input, one text a line; Ctrl-D ends it", file=sys.stderr)
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"standard input, line {number}, byte {error.start + 1}: not UTF-8 (0x{error.object[error.start]:02x})"
            ) from None


# ---- files with named columns ----------------------------------------------------------------------------


def _from_table(path: Path, choices: Sequence[Sequence[str]]) -> Input:
    """Read a file whole; a blank line is a row of empty cells."""
    text = read_text(path)
    header, line, records = _read_table(path, text, choices)
    read = f"The run's task reads {' and '.join(map(repr, choices[0]))}: name the file's columns so"
    chosen = choose_columns(f"{path}, line {line}", choices, header, read)
    places = [header.index(name) for name in chosen]

    def rows() -> Iterator[InputRow]:
        for number, cells in records:
            cells = cells or [""] * len(header)
            texts = _texts(f"{path}, line {number}", header, cells, places)
            yield InputRow(number, texts, _shown(cells))

    return Input(header, rows())


def read_task_input(file: Path, columns: Mapping[str, Sequence[str]]) -> Input:
    """Return the rows of a file in which a column `task` says whose text each is.

    Args:
        file: .csv, .tsv or .jsonl. columns: names of each task's text columns, one or two, by the task's name.

    Raises UserError, also while the rows are walked, for a task that is not among `columns`, and where a task's
    columns are not there.
    """
    path = expanded(file)
    if path.suffix.lower() not in TABLES:
        raise UserError(f"{path}: rows of several tasks stand in a {', '.join(TABLES)} file with a column {_TASK!r}")
    known = {name: [list(text_columns), _GLUE_COLUMNS[len(text_columns)]] for name, text_columns in columns.items()}
    choices = [[_TASK, *names] for each in known.values() for names in each]
    header, line, records = _read_table(path, read_text(path), choices)
    if _TASK not in header:
        raise UserError(f"{path}, line {line}: no column {_TASK!r} among {', '.join(map(repr, header))}")
    at = header.index(_TASK)

    def rows() -> Iterator[InputRow]:
        places: dict[str, list[int]] = {}
        for number, cells in records:
            cells = cells or [""] * len(header)
            shown, where = _shown(cells), f"{path}, line {number}"
            if not any(cell.strip() for cell in shown):
                yield InputRow(number, ("",), shown)
                continue
            (task,) = _texts(where, header, cells, [at])
            if task not in known:
                raise UserError(f"{where}: {no_task(task, known)}")
            if task not in places:
                chosen = next((names for names in known[task] if set(names) <= set(header)), None)
                if chosen is None:
                    wanted = " and ".join(map(repr, columns[task]))
                    found = ", ".join(map(repr, header))
                    raise UserError(f"{where}: task {task} reads {wanted}, the columns are {found}")
                places[task] = [header.index(name) for name in chosen]
            yield InputRow(number, _texts(where, header, cells, places[task]), shown, task)

    return Input(header, _with_text(rows(), path))


def _read_table(path: Path, text: str, choices: Sequence[Sequence[str]]) -> Table:
    return _json_table(path, text) if path.suffix.lower() == ".jsonl" else read_table(path, text, choices)


def _json_table(path: Path, text: str) -> Table:
    """Return the names of all keys in the order in which they come, and each object's values, None if it has none."""
    objects = [(number, _json_object(path, number, line)) for number, line in enumerate(_lines(text), start=1)]
    header = list(dict.fromkeys(name for _, row in objects for name in row))
    rows = ((number, [row.get(name) for name in header]) for number, row in objects)
    return Table(header, 1, rows)


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    if not line.strip():
        return {}
    return json_object(f"{path}, line {number}", line)


def _texts(where: str, header: Sequence[str], cells: Sequence[Any], places: Sequence[int]) -> tuple[str, ...]:
    """Return what stands in some columns of a row; UserError for a JSONL value that is no text."""
    return tuple("" if cells[at] is None else json_text(where, header[at], cells[at]).strip() for at in places)


def _shown(cells: Sequence[Any]) -> list[str]:
    """Return a row's cells as they are written; values of JSON as JSON."""
    return [cell or "" if isinstance(cell, str | None) else json.dumps(cell, ensure_ascii=False) for cell in cells]

"""A CSV of (system, seed, example, correct | score), or of scores that are means over examples already."""

import io
import re
from csv import Error as CsvError
from csv import reader as csv_rows
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.audit.evidence import Evidence, System
from peftbench.audit.pairing import Names, pair
from peftbench.audit.unpaired import standard_errors
from peftbench.errors import UserError, nearest
from peftbench.tasks.text.delimiter import find_delimiter
from peftbench.tasks.text.files import read_text

_RIGHT = {"1": 1.0, "1.0": 1.0, "true": 1.0, "yes": 1.0, "0": 0.0, "0.0": 0.0, "false": 0.0, "no": 0.0}
_KNOWN = ("system", "seed", "example", "correct", "score", "examples", "sd")
_MOST_DIGITS = 12
_LOOK = f"{', '.join(_KNOWN[:3])} and correct or score; or system, seed, score and examples (how many), maybe sd"


def read_csv(path: Path) -> Evidence:
    """Read the file: one row an example; or, without a column `example`, one row a run with its mean score.

    The latter has the number of `examples`, and `sd` over them unless scores are shares of right answers. Without a
    column `seed` every system has one run.

    Raises UserError for a file that is no such CSV, in UTF-8.
    """
    table = _read(path)
    systems = _names(path, table, "system")
    seeds = _names(path, table, "seed") if "seed" in table else Names(["0"], np.zeros(len(systems.codes), np.int64))
    scored = _scored(path, table)
    mend = "keep one row of each" if "seed" in table else "keep one row of each, or tell runs apart by a column seed"
    if "example" in table:
        examples_of = _names(path, table, "example")
        paired = pair(str(path), systems, seeds, examples_of, _values(path, table, scored), mend)
        examples = len(next(iter(paired.values())).values[0])  # type: ignore[index]
        return Evidence(str(path), scored, paired, examples)
    return _means(path, table, systems, seeds, mend)


def _read(path: Path) -> dict[str, Any]:
    """Return the known columns by name: texts as dictionaries, numbers as such."""
    import pyarrow as pa
    from pyarrow import csv

    text = read_text(path)
    if "\n" not in text:  # as some spreadsheets end lines
        text = text.replace("\r", "\n")
    text = text.lstrip("\n\r ")  # the header is the first line that holds something
    delimiter = "\t" if path.suffix.lower() == ".tsv" else find_delimiter(text, [["system"]])
    number, name = pa.float64(), pa.dictionary(pa.int32(), pa.string())
    kinds = {key: number if key in ("score", "sd") else name for key in _KNOWN}
    try:
        first = next(csv_rows([text.split("\n", 1)[0].strip()], delimiter=delimiter), [])
    except CsvError as error:
        raise UserError(f"{path}, line 1: {error}: it takes {_LOOK}") from error
    header = [column.strip() for column in first]
    for key in ("system", "correct" if "correct" in header else "score"):
        if key not in header:
            raise UserError(f"{path} has no column {key!r}. {nearest(key, header)} It takes {_LOOK}.")
    if len(set(header)) < len(header):
        raise UserError(f"{path}: two columns have one name: {', '.join(header)}")
    try:
        read = csv.read_csv(
            io.BytesIO(text.encode()),
            csv.ReadOptions(column_names=header, skip_rows=1),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values='"' in text),
            csv.ConvertOptions(column_types=kinds, include_columns=[key for key in _KNOWN if key in header]),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: {_reason(str(error).splitlines()[0], header)}") from error
    if not read.num_rows:
        raise UserError(f"{path}: there is no row below the header")
    return {key: read.column(key).combine_chunks() for key in read.column_names}


def _reason(message: str, header: list[str]) -> str:
    found = re.search(r"column #(\d+): .*invalid value '(.*)'", message)
    return f"{header[int(found[1])]} is {found[2]!r} in a row, which is no number" if found else message


def _names(path: Path, table: dict[str, Any], key: str) -> Names:
    column = table[key]
    texts = column.dictionary.to_pylist()
    if column.null_count or "" in texts:
        raise UserError(f"{path}: a row has no {key}")
    return Names(texts, column.indices.to_numpy())


def _scored(path: Path, table: dict[str, Any]) -> str:
    if {"correct", "score"} <= table.keys():
        raise UserError(f"{path} has both correct and score: leave one out")
    return "correct" if "correct" in table else "score"


def _values(path: Path, table: dict[str, Any], scored: str) -> np.ndarray:
    """Return the score of each row, 0 or 1 of the column `correct`."""
    if scored == "correct":
        names = _names(path, table, scored)
        for text in names.texts:
            if text.strip().lower() not in _RIGHT:
                raise UserError(f"{path}: correct is {text!r} in a row: it must be 1 or 0, true or false")
        return np.array([_RIGHT[text.strip().lower()] for text in names.texts])[names.codes]
    return _numbers(path, table, scored)


def _numbers(path: Path, table: dict[str, Any], key: str) -> np.ndarray:
    values: np.ndarray = table[key].to_numpy(zero_copy_only=False).astype(np.float64)
    if (odd := np.flatnonzero(~np.isfinite(values))).size:
        raise UserError(f"{path}: {key} is missing, NaN or infinite in row {odd[0] + 1:,} and {len(odd) - 1:,} others")
    return values


def _means(path: Path, table: dict[str, Any], systems: Names, seeds: Names, mend: str) -> Evidence:
    if "examples" not in table:
        raise UserError(f"{path} has neither a column 'example' nor 'examples'. It takes {_LOOK}.")
    scores = _numbers(path, table, "score")
    counted = _names(path, table, "examples")
    if len(counted.texts) > 1 or not counted.texts[0].isdecimal() or len(counted.texts[0]) > _MOST_DIGITS:
        shown = ", ".join(text[:20] for text in counted.texts[:3])
        raise UserError(f"{path}: examples must be one whole number for all, below 10^{_MOST_DIGITS}, not {shown}")
    examples = int(counted.texts[0])
    sd = _numbers(path, table, "sd") if "sd" in table else None
    errors = standard_errors(str(path), scores, examples, sd)
    found: dict[str, System] = {}
    for code, name in enumerate(systems.texts):
        rows = np.flatnonzero(systems.codes == code)
        names = [seeds.texts[seeds.codes[row]] for row in rows]
        if len(set(names)) < len(names):
            raise UserError(f"{path}: {name} has two rows of one seed: {mend}")
        found[name] = System(names, scores[rows], errors=errors[rows])
    return Evidence(str(path), "score", found, examples)

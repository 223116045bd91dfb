"""What a model answered for each example of a split: `predictions.csv`."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peftbench.csv_rows import write_rows
from peftbench.errors import UserError
from peftbench.files import atomic_write, is_number, plain
from peftbench.runs.dense_predictions import BOXES, PIXELS, box_rows, parse_boxes, parse_pixels, pixel_rows

_FIRST = ["split", "id", "label", "prediction"]
_FIRST_OF_VERSION_1 = ["split", "index", "label", "prediction"]
# by the form of an answer, the columns that a file of it begins with; behind them one a class, but for boxes
_HEADERS = {"one": _FIRST, "pixels": PIXELS, "boxes": BOXES}


class Predictions(NamedTuple):
    """What a model answered for a split, in the order of the split's file.

    `labels` and `predictions` have n entries (class numbers, or scores for a regression; `labels` is None
    where they are hidden), `probabilities` is n × classes, or None for a regression. `ids` name the examples;
    None: by their number.

    `form` says what an example's answer is: one class or score, "pixels" or "boxes". Of pixels, labels and predictions
    are masks (n, rows, columns) when written, and when read back the pixels of each class (n, classes) and their
    confusions (n, classes, classes). Of boxes they are (n, boxes, 6), see `runs.dense_predictions`.
    """

    labels: Any
    predictions: Any
    probabilities: Any = None
    ids: Sequence[str] | None = None
    form: str = "one"


def write_predictions(path: Path, splits: Mapping[str, Predictions], classes: Sequence[str] = ()) -> None:
    """Write split, id, label and prediction by name, and one column of probabilities a class.

    `classes` are the names by class number, empty for a regression. Hidden labels stay empty; examples without
    ids are numbered from 0 in each split. Raises ValueError where the parts of a split differ in length, and for a
    form that there is not.
    """
    form = next(iter(splits.values())).form if splits else "one"
    if form not in _HEADERS:
        raise ValueError(f"{form}: no such form, there are {', '.join(_HEADERS)}")
    with atomic_write(path) as file:
        write_rows(file, [[*_HEADERS[form], *(() if form == "boxes" else classes)]])
        for split, predictions in splits.items():
            write_rows(file, _rows(split, predictions, classes))


def _rows(split: str, given: Predictions, classes: Sequence[str]) -> list[list[Any]]:
    if given.form != "one":
        make = pixel_rows if given.form == "pixels" else box_rows
        ids: Any = range(len(given.predictions)) if given.ids is None else given.ids
        return [[split, *row] for row in make(ids, np.asarray(given.labels), np.asarray(given.predictions), classes)]
    predictions = plain(given.predictions)
    labels = [None] * len(predictions) if given.labels is None else plain(given.labels)
    probabilities = [[]] * len(predictions) if given.probabilities is None else plain(given.probabilities)
    ids = range(len(predictions)) if given.ids is None else given.ids
    if not len(labels) == len(predictions) == len(probabilities) == len(ids):
        raise ValueError(
            f"split {split!r}: {len(labels)} labels, {len(predictions)} predictions, {len(ids)} ids and "
            f"{len(probabilities)} rows of probabilities"
        )

    def named(value: Any) -> Any:
        return classes[value] if classes and value is not None else value

    examples = zip(ids, labels, predictions, probabilities, strict=True)
    return [[split, id_, named(label), named(prediction), *row] for id_, label, prediction, row in examples]


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Return the predictions of each split, classes by number; reads files of version 1 as well.

    Raises UserError where the file is missing, cut short or holds what is no prediction.
    """
    rows: dict[str, list[list[str]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            for row in reader:
                if len(row) != len(header):
                    raise ValueError(f"line {reader.line_num} has {len(row)} cells, not {len(header)}")
                rows.setdefault(row[0], []).append(row[1:])
        if header == BOXES:
            return {split: Predictions(*_dense(parse_boxes(cells)), form="boxes") for split, cells in rows.items()}
        if header[: len(PIXELS)] == PIXELS and _counts_pixels(header, rows):
            names = header[len(PIXELS) :]
            parsed = {split: parse_pixels(cells, names) for split, cells in rows.items()}
            return {split: Predictions(*_dense(found), form="pixels") for split, found in parsed.items()}
        if header[: len(_FIRST)] not in (_FIRST, _FIRST_OF_VERSION_1):
            raise ValueError("its header is of another file")
        names = header[len(_FIRST) :]
        numbers = dict(zip(names, range(len(names)), strict=True)) if header[: len(_FIRST)] == _FIRST else {}
        return {split: _parsed(cells, numbers, len(names)) for split, cells in rows.items()}
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, OverflowError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}. Delete its folder and train the run again.") from error


def _counts_pixels(header: list[str], rows: Mapping[str, list[list[str]]]) -> bool:
    """Tell whether a file that begins with split, id and label holds masks: a class may be called `prediction`.

    Behind the label rows of masks have whole numbers alone, and some label is a class. Other files have probabilities,
    which are written with a point, or no classes.
    """
    classes = header[len(PIXELS) :]
    if header[: len(_FIRST)] != _FIRST:
        return True
    cells = [row for of_split in rows.values() for row in of_split]
    labels = {label for _, label, *_ in cells} - {""}
    return bool(labels) and labels <= {*classes} and all(cell.isdecimal() for _, _, *counts in cells for cell in counts)


def _dense(parsed: tuple[list[str], np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, None, list[str]]:
    ids, labels, predictions = parsed
    return labels, predictions, None, ids


def _parsed(cells: list[list[str]], numbers: Mapping[str, int], classes: int) -> Predictions:
    labels = [_value(row[1], numbers, classes) for row in cells]
    predictions = [_value(row[2], numbers, classes) for row in cells]
    if None in predictions:
        raise ValueError("a prediction is missing")
    return Predictions(
        None if all(label is None for label in labels) else labels,
        predictions,
        [[float(_number(cell)) for cell in row[3:]] for row in cells] if classes else None,
        [row[0] for row in cells],
    )


def _value(cell: str, numbers: Mapping[str, int], classes: int) -> int | float | None:
    """Return the class number or score that a cell holds, None where it is empty."""
    if not cell:
        return None
    if numbers:
        if cell not in numbers:
            raise ValueError(f"{cell!r} is no class")
        return numbers[cell]
    value = _number(cell)
    if classes and isinstance(value, int) and not 0 <= value < classes:
        raise ValueError(f"{cell} is no class")
    return value


def _number(cell: str) -> int | float:
    value = int(cell) if cell.lstrip("-").isdigit() else float(cell)
    if not is_number(value):
        raise ValueError(f"{cell[:40]} is no number")
    return value

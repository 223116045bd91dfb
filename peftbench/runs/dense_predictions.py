"""What a model answered at every place of pictures, as rows of `predictions.csv`: counts of pixels, or boxes.

Enough to make every score again, and of any choice of the pictures.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from peftbench.tasks.detection.average_precision import cut_to_picture
from peftbench.tasks.segmentation.confusion import pixel_confusions

Cells = list[Any]

# behind them, for each class, how many pixels of the true class `label` were taken for it
PIXELS = ["split", "id", "label"]
# an object has a label, a detection a prediction and a score; in shares of the picture, x and y are the centre's
BOXES = ["split", "id", "label", "prediction", "score", "x", "y", "width", "height", "crowd"]


def pixel_rows(ids: Sequence[Any], masks: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Iterator[Cells]:
    """Yield id, true class and counts, a row for each class that a picture has; one without any where it has none.

    Args:
        masks, predicted: (pictures, rows, columns) class numbers.
    """
    for id_, confusion in zip(ids, pixel_confusions(predicted, masks, len(classes)), strict=True):
        present = np.flatnonzero(confusion.sum(1)).tolist()
        yield from ([id_, classes[kind], *confusion[kind].tolist()] for kind in present)
        if not len(present):
            yield [id_, "", *[0] * len(classes)]


def parse_pixels(cells: list[list[str]], classes: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return ids, the pictures' pixels of each class (pictures, classes), and their confusions; see `pixel_rows`."""
    number = {name: index for index, name in enumerate(classes)}
    found: dict[str, np.ndarray] = {}
    for id_, label, *counts in cells:
        confusion = found.setdefault(id_, np.zeros((len(classes), len(classes)), np.int64))
        if label:
            if label not in number:
                raise ValueError(f"{label!r} is no class")
            confusion[number[label]] = [int(count) for count in counts]
    confusions = np.stack(list(found.values()))
    if (confusions < 0).any():
        raise ValueError("a count is below 0")
    return list(found), confusions.sum(2), confusions


def box_rows(ids: Sequence[Any], labels: np.ndarray, found: np.ndarray, classes: Sequence[str]) -> Iterator[Cells]:
    """Yield a row for each object and each detection of a picture; one with the id alone where it has neither.

    Args:
        labels: (pictures, boxes, 6): class (-1: none), x, y, width, height, crowd.
        found: (pictures, detections, 6): class, score (0: none), x, y, width, height.
    """
    for id_, objects, detections in zip(ids, labels, cut_to_picture(labels, found), strict=True):
        objects, detections = objects[objects[:, 0] >= 0], detections[detections[:, 1] > 0]
        for kind, *box, crowd in objects:
            yield [id_, classes[int(kind)], "", "", *map(_short, box), int(crowd)]
        for kind, *numbers in detections:
            yield [id_, "", classes[int(kind)], *map(_short, numbers), ""]
        if not len(objects) and not len(detections):
            yield [id_, *[""] * (len(BOXES) - 2)]


def _short(value: np.floating) -> str:
    """Write a float32 so that it is read as the same."""
    return f"{value:.9g}"


def parse_boxes(cells: list[list[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return ids, objects and detections, padded as `box_rows` takes them; classes are numbered by their names."""
    true = sorted({row[1] for row in cells if row[1]})
    number = {name: index for index, name in enumerate(true)}
    for name in sorted({row[2] for row in cells if row[2]} - set(true)):
        number[name] = len(number)
    objects: dict[str, list[list[float]]] = {}
    detections: dict[str, list[list[float]]] = {}
    for id_, label, prediction, score, *box, crowd in cells:
        objects.setdefault(id_, [])
        detections.setdefault(id_, [])
        if label:
            objects[id_].append([number[label], *map(float, box), float(crowd)])
        if prediction:
            detections[id_].append([number[prediction], float(score), *map(float, box)])
    found = _padded(list(objects.values()), -1), _padded(list(detections.values()), 0)
    if not all(np.isfinite(each).all() for each in found):
        raise ValueError("a number of a box is none")
    return list(objects), *found


def _padded(rows: list[list[list[float]]], nothing: float) -> np.ndarray:
    """Return (pictures, most, 6), filled up with rows of `nothing`."""
    filled = np.full((len(rows), max(1, *map(len, rows)), 6), nothing, np.float32)
    for target, row in zip(filled, rows, strict=True):
        if row:
            target[: len(row)] = row
    return filled

"""From a folder of pictures and COCO's JSON to a detection task."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from peftbench.errors import UserError
from peftbench.files import is_unicode
from peftbench.tasks.detection.average_precision import PICTURE, check_metrics
from peftbench.tasks.detection.coco import Annotated, read_annotations, read_categories
from peftbench.tasks.detection.objective import Detection
from peftbench.tasks.image.augment import View, view_boxes
from peftbench.tasks.image.dense import DenseSplit, DenseTask, Size, common_size, picture_size, shape_in, split_of_files
from peftbench.tasks.image.folders import check_classes, read_splits, task_folder
from peftbench.tasks.image.overlay import with_boxes
from peftbench.tasks.image.sources import split_folder
from peftbench.tasks.shares import REST

if TYPE_CHECKING:
    from peftbench.config.task import DenseTaskConfig

_LAYOUT = "SPLIT/images/* and SPLIT/annotations.json in COCO's form"
_ANNOTATIONS = "annotations.json"
SHOWN_SCORE = 0.3  # the least score of a detection that is drawn on a picture


class Box(NamedTuple):
    """A detection: its class and score (0 … 1), and its box's left and upper edge, width and height in pixels."""

    label: str
    score: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class DetectionTask(DenseTask):
    """Pictures with boxes around objects."""

    unit = "box"

    def classes_in(self, labels: np.ndarray) -> set[int]:
        """Return the classes of boxes, (pictures, boxes, 6); -1 fills up."""
        return {int(kind) for kind in np.unique(labels[..., 0])} - {-1}

    def apply_view(self, label: torch.Tensor, view: View) -> torch.Tensor:
        """Return boxes, (boxes, 6), cut to a view of the picture; those outside of it get class -1."""
        boxes, seen = view_boxes(label[:, 1:5], view)
        kind = torch.where(seen, label[:, 0], -1.0)
        return torch.cat([kind[:, None], boxes, label[:, 5:]], -1)

    def answers_in_given_size(self, split: DenseSplit, answers: np.ndarray) -> list[Any]:
        """Return the boxes of each picture, the surest first, in its pixels."""
        return [
            [
                Box(self.labels[int(kind)], score, (x - wide / 2), (y - high / 2), wide, high)
                for kind, score, x, y, wide, high in _in_pixels(found, split.given_size(index), self.size)
            ]
            for index, found in enumerate(answers)
        ]

    def render_example(self, split: DenseSplit, index: int, answer: np.ndarray) -> tuple[Any, Any]:
        """Return a picture with its true boxes, and with the detections, (n, 6), of at least `SHOWN_SCORE`."""
        assert split.labels is not None
        picture, truth = split.open(index), split.labels[index]
        shown = answer[answer[:, 1] >= SHOWN_SCORE]
        boxes = with_boxes(picture, shown[:, [0, 2, 3, 4, 5]], self.labels, shown[:, 1].tolist())
        return with_boxes(picture, truth[truth[:, 0] >= 0][:, :5], self.labels), boxes


def load_task(config: "DenseTaskConfig", splits: Sequence[str] | None = None) -> DetectionTask:
    """Read a task's splits: boxes at once, the pictures when they are encoded.

    Args:
        config: where the pictures and boxes are.
        splits: names, all of which must be there; by default train, validation and, where there is one, test.

    Raises UserError where something cannot be read; one line with the file's name.
    """
    check_metrics(config.metrics)
    folder = task_folder(config, _LAYOUT)
    labels = tuple(config.labels) or tuple(read_categories(_of_training(config, folder)).values())
    check_classes(labels, "task.labels" if config.labels else str(_of_training(config, folder)))
    pictures_of = cache(lambda path: _pictures(path, labels))  # a file of boxes may be large
    size = config.size or _common_size(pictures_of(_of_training(config, folder)))
    read = read_splits(config, folder, splits, lambda place: _split(place, pictures_of(place / _ANNOTATIONS), size))
    return _task(config, labels, read, size, f"folder {folder}")


def blank_task(config: "DenseTaskConfig", labels: Sequence[str]) -> DetectionTask:
    """Return a task without data, for pictures that come from elsewhere; `labels` are the class names by index."""
    assert config.size is not None
    return _task(config, tuple(labels), {}, config.size, "")


def _of_training(config: "DenseTaskConfig", folder: Path) -> Path:
    return split_folder(config, folder, REST) / _ANNOTATIONS


def _common_size(pictures: Sequence[Annotated]) -> Size:
    return common_size([(picture.height, picture.width) for picture in pictures])


def _pictures(path: Path, labels: Sequence[str]) -> list[Annotated]:
    pictures = read_annotations(path, labels)
    if not pictures:
        raise UserError(f"{path} lists no images")
    return pictures


def _task(
    config: "DenseTaskConfig", labels: tuple[str, ...], splits: dict[str, Any], size: Size, source: str
) -> DetectionTask:
    metrics, augment = tuple(config.metrics), tuple(config.augment)
    return DetectionTask(config.name, Detection(labels), labels, metrics, splits, source, ("image",), size, augment)


def _in_pixels(found: np.ndarray, given: Size, size: Size) -> list[list[float]]:
    """Return detections of a picture, from shares of its padded form to pixels of its own; cut to it."""
    height, width = given
    high, wide = shape_in(size, height, width)
    found = found[found[:, 1] > 0].astype(float)
    low = np.minimum((found[:, 2:4] - found[:, 4:] / 2) / [wide, high], 1)
    edge = np.minimum((found[:, 2:4] + found[:, 4:] / 2) / [wide, high], 1)
    inside = (edge > low).all(1)
    boxes = np.concatenate([(low + edge) / 2, edge - low], 1) * [width, height, width, height]
    kept: list[list[float]] = np.concatenate([found[:, :2], boxes], 1)[inside].tolist()
    return kept


def _split(place: Path, pictures: Sequence[Annotated], size: Size) -> DenseSplit:
    files = [_file(place, picture) for picture in pictures]
    rows = [_in_shares(picture, size) for picture in pictures]
    labels = np.zeros((len(pictures), max(1, *map(len, rows)), 6), np.float32)
    labels[..., 0] = -1
    for label, of_picture in zip(labels, rows, strict=True):
        label[: len(of_picture)] = of_picture
    if not ((labels[..., 0] >= 0) & (labels[..., 5] == 0)).any():
        raise UserError(f"{place / _ANNOTATIONS} has no box at all of a single object (iscrowd=0)")
    return split_of_files(files, size, labels)


def _in_shares(picture: Annotated, size: Size) -> np.ndarray:
    """Return a picture's boxes in shares of its padded form, and, where it is padded, a row of its part of that."""
    high, wide = shape_in(size, picture.height, picture.width)
    boxes = picture.boxes * np.array([1, wide, high, wide, high, 1], np.float32)
    if high == wide == 1:
        return boxes
    return np.concatenate([boxes, np.array([[PICTURE, wide / 2, high / 2, wide, high, 0]], np.float32)])


def _file(place: Path, picture: Annotated) -> Path:
    folder = place / "images"
    path = folder / picture.file
    if "\0" in picture.file or not is_unicode(picture.file):
        raise UserError(f"{place / _ANNOTATIONS}: image {picture.file!r} has a character that no file name has")
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
        raise UserError(f"{place / _ANNOTATIONS}: image {picture.file} lies outside of {folder}")
    if not path.is_file():
        raise UserError(f"{place / _ANNOTATIONS}: there is no image {path}")
    height, width = picture_size(path)
    if (height, width) != (picture.height, picture.width):
        raise UserError(
            f"{path} has {width} x {height} pixels, {place / _ANNOTATIONS} says {picture.width} x {picture.height}:"
            " its boxes would lie elsewhere"
        )
    return path

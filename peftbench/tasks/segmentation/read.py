"""From a folder of pictures and masks to a segmentation task."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from peftbench.errors import UserError
from peftbench.files import parse_json
from peftbench.tasks.image.augment import View, view_mask
from peftbench.tasks.image.dense import DenseSplit, DenseTask, Size, common_size, picture_size, shape_in, split_of_files
from peftbench.tasks.image.encoded import room_for
from peftbench.tasks.image.files import images_below, images_in
from peftbench.tasks.image.folders import check_classes, read_splits, task_folder
from peftbench.tasks.image.overlay import with_mask
from peftbench.tasks.image.sources import split_folder
from peftbench.tasks.segmentation.confusion import VOID, check_metrics
from peftbench.tasks.segmentation.masks import read_mask
from peftbench.tasks.segmentation.objective import Segmentation
from peftbench.tasks.shares import REST

if TYPE_CHECKING:
    from peftbench.config.task import DenseTaskConfig

_LAYOUT = "SPLIT/images/*.jpg and SPLIT/masks/*.png of the same names"
_CLASSES = "classes.json"


@dataclass(frozen=True)
class SegmentationTask(DenseTask):
    """Pictures with the class of every pixel."""

    unit = "pixel"

    def classes_in(self, labels: np.ndarray) -> set[int]:
        """Return the classes of the pixels of masks, (pictures, rows, columns)."""
        return {int(kind) for mask in labels for kind in np.unique(mask)} - {VOID}

    def apply_view(self, label: torch.Tensor, view: View) -> torch.Tensor:
        """Return a mask as it is in a view of the picture."""
        return view_mask(label, view)

    def answers_in_given_size(self, split: DenseSplit, answers: np.ndarray) -> list[Any]:
        """Return a mask, (height, width) of the picture that was given, for each."""
        masks = []
        for index, mask in enumerate(answers):
            height, width = split.given_size(index)
            high, wide = shape_in(self.size, height, width)
            rows = ((np.arange(height) + 0.5) / height * high * self.size[0]).astype(int)
            columns = ((np.arange(width) + 0.5) / width * wide * self.size[1]).astype(int)
            masks.append(mask[rows.clip(max=self.size[0] - 1)][:, columns.clip(max=self.size[1] - 1)])
        return masks

    def render_example(self, split: DenseSplit, index: int, answer: np.ndarray) -> tuple[Any, Any]:
        """Return a picture under its mask and under the mask that was answered, both (rows, columns)."""
        assert split.labels is not None
        picture = split.open(index).resize(self.size[::-1])
        truth, answered = (with_mask(picture, mask, self.labels) for mask in (split.labels[index], answer))
        return truth, answered


def load_task(config: "DenseTaskConfig", splits: Sequence[str] | None = None) -> SegmentationTask:
    """Read a task's splits: masks at once, the pictures when they are encoded.

    Args:
        config: where the pictures and masks are.
        splits: names, all of which must be there; by default train, validation and, where there is one, test.

    Raises UserError where something cannot be read; one line with the file's name.
    """
    check_metrics(config.metrics)
    folder = task_folder(config, _LAYOUT)
    labels = tuple(config.labels) or _classes(folder)
    where = "task.labels" if config.labels else str(folder / _CLASSES)
    if not 2 <= len(labels) <= VOID:
        raise UserError(f"{where} must name 2 to {VOID} classes, not {len(labels)}: a pixel's is one byte")
    check_classes(labels, where)
    size = config.size or common_size([picture_size(path) for path in _pictures(split_folder(config, folder, REST))])
    read = read_splits(config, folder, splits, lambda place: _split(place, size, len(labels)))
    return _task(config, labels, read, size, f"folder {folder}")


def blank_task(config: "DenseTaskConfig", labels: Sequence[str]) -> SegmentationTask:
    """Return a task without data, for pictures that come from elsewhere; `labels` are the class names by index."""
    assert config.size is not None
    return _task(config, tuple(labels), {}, config.size, "")


def _task(
    config: "DenseTaskConfig", labels: tuple[str, ...], splits: dict[str, Any], size: Size, source: str
) -> SegmentationTask:
    objective = Segmentation(labels, size)
    return SegmentationTask(
        config.name, objective, labels, tuple(config.metrics), splits, source, ("image",), size, tuple(config.augment)
    )


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes: of classes.json, a list or an object with the list `classes`."""
    path = folder / _CLASSES
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} has no {_CLASSES}: write the classes' names there as a list, in the order of their numbers,"
            " or set task.labels=[…]"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    names = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(names, list) or len({*map(str, names)}) != len(names):
        raise UserError(f"{path} must hold a list of 2 to {VOID} different class names")
    return tuple(map(str, names))


def _pictures(place: Path) -> list[Path]:
    folder = place / "images"
    if not folder.is_dir() or not (found := images_in(folder)):
        raise UserError(f"{folder} holds no images: a split is {_LAYOUT}")
    if below := sorted({*images_below(folder)} - {*found}):
        raise UserError(f"{below[0]}: pictures lie directly in {folder}, their masks in {place / 'masks'}")
    for path, following in pairwise(found):
        if path.stem == following.stem:
            raise UserError(f"{path} and {following.name} would share a mask: give each picture a name of its own")
    return found


def _split(place: Path, size: Size, classes: int) -> DenseSplit:
    pictures = _pictures(place)
    masks = room_for((len(pictures), *size), "masks")
    for mask, picture in zip(masks, pictures, strict=True):
        path = place / "masks" / f"{picture.stem}.png"
        if not path.is_file():
            raise UserError(f"{picture} has no mask: {path} is not there")
        height, width = picture_size(picture)
        mask[:] = _fitted(read_mask(path, (height, width), classes), size)
    if (masks == VOID).all():
        raise UserError(f"{place / 'masks'}: no pixel has a class, all are {VOID}")
    return split_of_files(pictures, size, masks)


def _fitted(mask: np.ndarray, size: Size) -> np.ndarray:
    """Return a mask as its picture is brought to `size`: the nearest pixel's class, none where it is padded."""
    if mask.shape == size:
        return mask
    high, wide = shape_in(size, *mask.shape)
    rows = ((np.arange(size[0]) + 0.5) / size[0] / high * mask.shape[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) / size[1] / wide * mask.shape[1]).astype(int)
    fitted = mask[rows.clip(max=mask.shape[0] - 1)][:, columns.clip(max=mask.shape[1] - 1)]
    fitted[rows >= mask.shape[0]] = VOID
    fitted[:, columns >= mask.shape[1]] = VOID
    return fitted

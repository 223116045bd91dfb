"""Where the images of a task's splits come from: class folders, an archive of them, the hub, or scikit-learn."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.assets.archive import unpacked_archive
from peftbench.assets.hub_dataset import load_from_hub
from peftbench.config.task import ImageTaskConfig, TaskConfig
from peftbench.errors import UserError, nearest
from peftbench.files import expanded, is_there
from peftbench.tasks.image.files import images_below, images_in
from peftbench.tasks.image.task import ImageSource
from peftbench.tasks.splits import MissingSplitError

# what a split's folder may be called besides its name
_FOLDER_NAMES = {"validation": ("validation", "val", "valid", "dev")}


@dataclass(frozen=True)
class Images:
    """Images, what lines call them, and the class of each by name; None where all are hidden."""

    images: Sequence[ImageSource]
    names: Sequence[str]
    classes: Sequence[str] | None


@dataclass(frozen=True)
class Source:
    """Where a task's images are, in words, and how a split of them is read."""

    description: str
    read: Callable[[str], Images]


def open_source(config: ImageTaskConfig) -> Source:
    """Find where a task's images are."""
    if config.source == "sklearn":
        return Source("scikit-learn's digits", _digits)
    if (folder := data_folder(config)) is not None:
        return Source(f"folder {folder}", lambda split: _class_folders(config, folder, split))
    if config.source == "hub" and config.id:
        return _hub(config)
    raise UserError(
        f"task {config.name} needs its images: task.dir=FOLDER with train/CLASS/*.jpg, and the same under validation or"
        " test"
    )


def data_folder(config: TaskConfig) -> Path | None:
    """Return the folder of a task's data: `task.dir`, else what lies in `$PEFTBENCH_DATA/vision`, else None.

    There it is a folder of the task's name, or the archive `task.archive`, which is unpacked into the cache once.

    Raises UserError for a folder that is not there or a damaged archive.
    """
    if config.dir:
        folder = Path(config.dir)
        if not is_there(folder, Path.is_dir):
            raise UserError(f"no such task folder: {folder}; set task.dir to a folder that holds the task's data")
        return folder
    data = os.environ.get("PEFTBENCH_DATA")
    if not data:
        return None
    vision = expanded(data) / "vision"
    if (vision / config.name).is_dir():
        return vision / config.name
    archive = vision / (config.archive or config.name)
    return unpacked_archive(archive) if archive.is_file() else None


def split_folder(config: TaskConfig, folder: Path, split: str) -> Path:
    """Return the folder of a split; raises MissingSplitError where there is none."""
    given = config.splits.get(split)
    names = (str(given),) if given else _FOLDER_NAMES.get(split, (split,))
    for name in names:
        if is_there(folder / name, Path.is_dir):
            return folder / name
    raise MissingSplitError(f"task {config.name}: no folder {' or '.join(names)} in {folder}")


def _class_folders(config: ImageTaskConfig, folder: Path, split: str) -> Images:
    """Read `SPLIT/CLASS/image`, however deep; every folder in the split's is a class."""
    place = split_folder(config, folder, split)
    images: list[Path] = []
    classes: list[str] = []
    for of_class in sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in of_class.name):
            raise UserError(f"{str(of_class)!r}: a class's name must be of UTF-8 characters, in one line")
        found = images_below(of_class)
        if not found:
            raise UserError(f"{of_class} holds no image: remove the class's folder, or put images there")
        images += found
        classes += [of_class.name] * len(found)
    if not images:
        raise UserError(f"{place} holds no class folders: put the images of each class into a folder of its name")
    if loose := images_in(place):
        count = f"{len(loose)} images lie" if len(loose) > 1 else "1 image lies"
        raise UserError(f"{place}: {count} beside its class folders ({loose[0].name}): move what is to count into one")
    return Images(images, list(map(str, images)), classes)


def _hub(config: ImageTaskConfig) -> Source:
    import datasets

    description = " ".join(["hub", str(config.id), *([config.subset] if config.subset else [])])
    other_ways = "a folder with train/CLASS/*.jpg (task.dir=FOLDER)"
    dataset = load_from_hub(str(config.id), config.subset, config.revision, other_ways)

    def read(split: str) -> Images:
        name = str(config.splits.get(split) or split)
        if name not in dataset:
            raise MissingSplitError(
                f"task {config.name}: {description} has no split {name!r}, only {', '.join(dataset)}"
            )
        part = dataset[name]
        for column in (config.image, config.label):
            if column not in part.column_names:
                raise UserError(
                    f"task {config.name}: {description} has no column {column!r} among {', '.join(part.column_names)};"
                    " set task.image and task.label"
                )
        if not isinstance(part.features[config.image], datasets.Image):
            raise UserError(
                f"task {config.name}: column {config.image!r} of {description} holds no images: set task.image"
            )
        stored = part.cast_column(config.image, datasets.Image(decode=False))
        images = [row["bytes"] if row["bytes"] is not None else Path(row["path"]) for row in stored[config.image]]
        names = [f"{description} {name}, row {row}" for row in range(len(images))]
        return Images(images, names, _hub_classes(part[config.label], part.features[config.label], names))

    return Source(description, read)


def _hub_classes(labels: Sequence[Any], feature: Any, names: Sequence[str]) -> list[str] | None:
    """Return the class of each row by name: the feature's own names, or what stands there; None where all are hidden.

    Args:
        labels: indices or values; −1 and None are hidden ones. feature: of the column. names: what lines call the rows.
    """
    known = getattr(feature, "names", None)
    hidden = [label is None or (known is not None and label == -1) for label in labels]
    if hidden and all(hidden):
        return None
    if any(hidden):
        raise UserError(f"{names[hidden.index(True)]} has no class: of a split all rows have one, or none")
    return [str(label) if known is None else known[label] for label in labels]


def _digits(split: str) -> Images:
    """Return a split of scikit-learn's handwritten digits: a hash of its values says in which an image is."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("task=digits needs scikit-learn: pip install 'peftbench[vision]'") from error
    data = load_digits()
    grey = (data.images * 15.9375).astype(np.uint8)  # their values are 0 to 16
    shares = {"train": range(60), "validation": range(60, 75), "test": range(75, 100)}
    if split not in shares:
        raise MissingSplitError(f"task digits: no split {split!r}. {nearest(split, shares)}")
    rows = [row for row, image in enumerate(grey) if _hundredth(image) in shares[split]]
    names = [f"digit {row}" for row in rows]
    return Images([grey[row] for row in rows], names, [str(data.target[row]) for row in rows])


def _hundredth(image: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "big") % 100

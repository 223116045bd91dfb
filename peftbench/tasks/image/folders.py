"""A folder with a folder for each split of pictures that have something told at every place."""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.errors import UserError
from peftbench.tasks.image.sources import data_folder, split_folder
from peftbench.tasks.splits import check_names, chosen_splits, read_parts

if TYPE_CHECKING:
    from peftbench.config.task import DenseTaskConfig
    from peftbench.tasks.image.dense import DenseSplit


# control characters, halves of a character, and ends of lines
_NOT_OF_A_LINE = ("Cc", "Cs", "Zl", "Zp")


def task_folder(config: "DenseTaskConfig", layout: str) -> Path:
    """Return a task's folder; `layout` says what must be in it. Raises UserError where there is none."""
    path = data_folder(config)
    if path is None:
        raise UserError(f"task {config.name} needs its data: task.dir=FOLDER with {layout}")
    return path


def check_classes(names: Sequence[str], where: str) -> None:
    """Raise UserError, naming `where` they stand, for a class without a name that files and pictures can hold."""
    for name in names:
        if not name.strip() or any(unicodedata.category(letter) in _NOT_OF_A_LINE for letter in name):
            raise UserError(f"{where}: a class needs a name of one line, which {name!r} is not")


def read_splits(
    config: "DenseTaskConfig", folder: Path, splits: Sequence[str] | None, read: Callable[[Path], "DenseSplit"]
) -> dict[str, "DenseSplit"]:
    """Return the splits of a folder by name.

    Args:
        folder: of the task. splits: names, all of which must be there; by default train, validation and, where there
            is one, test. read: reads the folder of one.
    """
    check_names(config, splits)
    parts = read_parts(config, splits, lambda name: read(split_folder(config, folder, name)))
    return chosen_splits(config, splits, parts, lambda split: [0] * len(split))

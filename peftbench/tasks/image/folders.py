"""A folder with a folder for each split: which there are, and splits that are a share of the training data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.errors import UserError, nearest
from peftbench.tasks.image.sources import MissingSplitError, data_folder, split_folder
from peftbench.tasks.shares import REST, divide

if TYPE_CHECKING:
    from peftbench.config.task import DenseTaskConfig
    from peftbench.tasks.image.dense import DenseSplit

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Folder:
    """The folder of a task's data."""

    config: "DenseTaskConfig"
    path: Path

    @property
    def description(self) -> str:
        """Where it is, in words."""
        return f"folder {self.path}"

    def first(self) -> Path:
        """Return the folder of the split that says what the classes and the pictures' size are: the training data's."""
        return split_folder(self.config, self.path, REST)


def open_folder(config: "DenseTaskConfig", layout: str) -> Folder:
    """Find a task's folder; `layout` says what must be in it. Raises UserError where there is none."""
    path = data_folder(config)
    if path is None:
        raise UserError(f"task {config.name} needs its data: task.dir=FOLDER with {layout}")
    return Folder(config, path)


def read_splits(
    folder: Folder, splits: Sequence[str] | None, read: Callable[[Path], "DenseSplit"]
) -> dict[str, "DenseSplit"]:
    """Return the splits of a folder by name.

    Args:
        folder: of the task. splits: names, all of which must be there; by default train, validation and, where there
            is one, test. read: reads the folder of one.
    """
    config = folder.config
    known = [*SPLITS, *(name for name in config.splits if name not in SPLITS)]
    for name in splits or ():
        if name not in known:
            raise UserError(f"task {config.name}: unknown split {name!r}. {nearest(name, known)}")
    names = list(splits or SPLITS)
    shares = {name: share for name, share in config.splits.items() if isinstance(share, float)}
    found: dict[str, DenseSplit] = {}
    for name in dict.fromkeys(REST if name in shares else name for name in names):
        try:
            found[name] = read(split_folder(config, folder.path, name))
        except MissingSplitError:
            if splits or name != "test":
                raise
    if shares and REST in found:
        rows = divide([0] * len(found[REST]), shares)
        found |= {name: found[REST].subset(part) for name, part in rows.items()}
    return {name: found[name] for name in names if name in found}

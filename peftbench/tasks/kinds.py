"""The module that reads each kind of task."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from peftbench.config.task import TaskConfig
from peftbench.tasks.base import Task

_READERS = {
    "text": "peftbench.tasks.text.read",
    "images": "peftbench.tasks.image.read",
    "segmentation": "peftbench.tasks.segmentation.read",
    "detection": "peftbench.tasks.detection.read",
}
# those whose `data_folder` finds the user's files
_SOURCES = {"text": "peftbench.tasks.text.sources"} | dict.fromkeys(
    ("images", "segmentation", "detection"), "peftbench.tasks.image.sources"
)


def reader_of(kind: str) -> ModuleType:
    """Return the module whose `load_task` reads tasks of a kind."""
    return import_module(_READERS[kind])


def blank_task(config: TaskConfig, labels: Sequence[str]) -> Task:
    """Return a task without data, for examples that come from elsewhere; `labels` are the class names by index."""
    task: Task = reader_of(config.kind).blank_task(config, labels)
    return task


def is_of_files(config: TaskConfig) -> bool:
    """Tell whether a task's data are files of the user's, which may be others by now.

    Raises UserError where the folder they should be in is not there.
    """
    return config.source == "local" or import_module(_SOURCES[config.kind]).data_folder(config) is not None


def load_task(config: TaskConfig, splits: Sequence[str] | None = None) -> Task:
    """Read a task's splits.

    Args:
        config: where the task comes from and what its examples are.
        splits: names, all of which must be there; by default train, validation and, where there is one, test.

    Raises UserError where the data cannot be had or read; one line that says where and what to do.
    """
    task: Task = reader_of(config.kind).load_task(config, splits)
    return task

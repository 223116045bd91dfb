"""The modules that read each kind of task."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from peftbench.config.task import TaskConfig
from peftbench.tasks.base import Task


class Kind(NamedTuple):
    """The names of the modules of one kind of task, which are imported when they are needed.

    Attributes:
        reader: defines `load_task(config, splits)`, which reads the splits of those names, all there are where it is
            None, and `blank_task(config, labels)`, a task without data; both return a `Task`.
        sources: defines `data_folder(config)`, the folder of the user's files, None where the data come from elsewhere.
    """

    reader: str
    sources: str


# one for each of `peftbench.config.task.TASK_KINDS`
KINDS = {
    "text": Kind("peftbench.tasks.text.read", "peftbench.tasks.text.sources"),
    "images": Kind("peftbench.tasks.image.read", "peftbench.tasks.image.sources"),
    "segmentation": Kind("peftbench.tasks.segmentation.read", "peftbench.tasks.image.sources"),
    "detection": Kind("peftbench.tasks.detection.read", "peftbench.tasks.image.sources"),
}


def reader_of(kind: str) -> ModuleType:
    """Return the module whose `load_task` reads tasks of a kind."""
    return import_module(KINDS[kind].reader)


def blank_task(config: TaskConfig, labels: Sequence[str]) -> Task:
    """Return a task without data, for examples that come from elsewhere; `labels` are the class names by index."""
    task: Task = reader_of(config.kind).blank_task(config, labels)
    return task


def is_of_files(config: TaskConfig) -> bool:
    """Tell whether a task's data are files of the user's, which may be others by now.

    Raises UserError where the folder they should be in is not there.
    """
    return config.source == "local" or import_module(KINDS[config.kind].sources).data_folder(config) is not None


def load_task(config: TaskConfig, splits: Sequence[str] | None = None) -> Task:
    """Read a task's splits.

    Args:
        config: where the task comes from and what its examples are.
        splits: names, all of which must be there; by default train, validation and, where there is one, test.

    Raises UserError where the data cannot be had or read; one line that says where and what to do.
    """
    task: Task = reader_of(config.kind).load_task(config, splits)
    return task

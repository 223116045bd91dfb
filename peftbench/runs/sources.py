"""Whether the data and the other runs that a finished run was made from have changed since."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.config.schema import RunConfig
from peftbench.errors import UserError
from peftbench.runs.find import inspect_run
from peftbench.runs.record import Record
from peftbench.runs.result import Result

if TYPE_CHECKING:
    from peftbench.tasks.base import Task


def check_data(record: Record, task: "Task") -> None:
    """Raise UserError where the record is of other data than `task` holds: a run's id does not cover it."""
    from peftbench.runs.adapter import read_description

    origin, labels = record.read().origin, read_description(record.adapter_dir).labels
    # what the classes are called is in no checksum
    if (origin is not None and origin.data != task.checksum) or labels != list(task.labels):
        raise UserError(
            f"{record.folder} was trained on other data than {task.source} holds now:"
            " set another experiment=…, or train again with force=true"
        )


def check_parts(record: Record, config: RunConfig) -> None:
    """Raise UserError where a run that the record's was made of has been trained again since."""
    if changed := retrained_parts(record.read(), part_folders(config.plain()["method"])):
        raise UserError(
            f"{record.folder} was made before its adapter {changed[0]} was trained again: train it again too, with"
            " force=true, or set another experiment=…"
        )


def part_folders(method: Mapping[str, Any]) -> Mapping[str, str]:
    """Return where the runs lie that a method is made of, by their names; none for a method that is made of none.

    Args:
        method: its settings as a record has them: `runs` are the ids of those, see `methods.parts.PartsConfig`.
    """
    folders = method.get("adapters") if method.get("runs") else None
    return folders if isinstance(folders, Mapping) else {}


def retrained_parts(result: Result, folders: Mapping[str, str]) -> list[str]:
    """Return the names of the runs, out of those a run was made of, whose adapters are others by now.

    Args:
        result: of the run.
        folders: where the runs lie that it is made of. One that is gone, or has not finished, counts as unchanged: what
            went in is in the run's own adapter.
    """
    parts = result.origin.parts if result.origin else {}
    found = {name: inspect_run(Record(Path(folders[name]))) for name in parts if name in folders}
    return [
        name
        for name, run in found.items()
        if run.result and run.result.status.is_trained and adapter_digest(run.result) != parts[name].adapter
    ]


def adapter_digest(result: Result) -> str:
    """Return the SHA-256 of a run's trained tensors, empty where the record knows none."""
    return result.files.get("adapter/adapter.safetensors", "")

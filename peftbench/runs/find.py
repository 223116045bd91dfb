"""Finding runs: all of them under an output folder, or the one a user names."""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from peftbench.errors import UserError
from peftbench.files import is_there
from peftbench.runs.lock import is_locked
from peftbench.runs.record import Record
from peftbench.runs.result import SECTIONS, Result, Status

UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Run:
    """A run as found on disk.

    `status` is the record's, but `interrupted` for one that says running while no process trains it, and
    `unreadable` for one that is damaged: then there is no `result`, and `error` says why.
    """

    record: Record
    status: str
    result: Result | None
    error: str | None = None

    @property
    def id(self) -> str:
        """The run's name, which is its folder's."""
        return self.record.folder.name

    @property
    def started(self) -> datetime | None:
        """When it was started, None where the record does not say."""
        return parse_time(self.result.started) if self.result else None

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says as plain data: `metrics` by split, the figures of each section, all else by field."""
        if self.result is None:
            return {"error": self.error}
        facts = self.result.as_dict()
        for name in ("evaluations", "files", "schema"):
            del facts[name]
        origin, environment = facts.pop("origin") or {}, facts.pop("environment") or {}
        measured = {name: self.result.section(name).result for name in SECTIONS}
        return {**facts, **environment, **origin, **measured, "metrics": self.result.metrics, "error": self.error}


def parse_time(text: Any) -> datetime | None:
    """Return the time a record's field holds (ISO 8601 with its offset), None where it holds none."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else None


def inspect_run(record: Record) -> Run:
    """Read a record and see whether a process still trains it; never raises for a damaged one."""
    try:
        result = record.read()
        if result.status == Status.RUNNING and not is_locked(record.folder):
            # Again, for it may have finished between the two looks; a running one is locked first.
            result = record.read()
            if result.status == Status.RUNNING and not is_locked(record.folder):
                return Run(record, Status.INTERRUPTED, result)
        return Run(record, result.status, result, result.error)
    except UserError as error:
        return Run(record, UNREADABLE, None, str(error))


def find_runs(
    output_dir: Path,
    status: str | None = None,
    experiment: str | None = None,
    method: str | None = None,
    task: str | None = None,
    model: str | None = None,
) -> list[Run]:
    """Return the runs under `output_dir` that match every filter given, by the time they were started.

    A folder that does not exist holds no runs. Damaged records come first, with status `unreadable`; what
    they were is unknown, so they match no filter but that status.
    """
    filters = {"experiment": experiment, "method": method, "task": task, "model": model}
    runs = [inspect_run(record) for record in _records(output_dir)]
    found = [
        run
        for run in runs
        if status in (None, run.status)
        and all(value is None or getattr(run.result, field, None) == value for field, value in filters.items())
    ]
    return sorted(found, key=lambda run: (run.started.timestamp() if run.started else 0.0, run.id))


def _records(output_dir: Path) -> Iterator[Record]:
    """Walk to every folder with a `result.json`; an experiment's name may have several parts.

    Symbolic links are followed, and each folder is entered once, by whichever way comes first.
    """
    entered = set()
    for folder, subfolders, files in os.walk(output_dir, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders.sort()
        record = Record(Path(folder))
        if record.result_path.name in files:
            subfolders.clear()
            yield record


def load_run(run: str, output_dir: Path) -> Record:
    """Return the run a user names by its folder, its id, the start of the id, or the hash at its end.

    `<experiment>/<id>` and its start tell apart runs of one id in two experiments. Raises UserError where
    none matches, with the nearest ones, or several do, with their names.
    """
    path = Path(run)
    folder = path.parent if path.name == "result.json" else path
    if is_there(folder / "result.json", Path.is_file):
        return Record(folder)
    records = {record.folder.relative_to(output_dir).as_posix(): record for record in _records(output_dir)}
    exact = [name for name in records if run in (name, _id(name))]
    found = exact or [
        name
        for name in records
        if run and (name.startswith(run) or _id(name).startswith(run) or name.endswith(f"-{run}"))
    ]
    if len(found) == 1:
        return records[found[0]]
    if found:
        names = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        raise UserError(f"{run!r} names {len(found)} runs under {output_dir}: {names}. Say which.")
    if not records:
        raise UserError(f"No run {run!r}: there are no runs under {output_dir}.")
    raise UserError(f"No run {run!r} under {output_dir}. {_nearest(run, list(records))}")


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _nearest(run: str, names: list[str]) -> str:
    """Suggest runs whose names begin about as `run` does, for a user rarely types the whole of one."""

    def likeness(name: str) -> float:
        starts = (name[: len(run)], _id(name)[: len(run)], name[-len(run) :])
        return max(difflib.SequenceMatcher(None, run, start).ratio() for start in starts)

    close = sorted((name for name in names if likeness(name) >= 0.7), key=likeness, reverse=True)[:3]
    return f"Did you mean {' or '.join(close)}?" if close else "`peftbench runs` lists those there are."

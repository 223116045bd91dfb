"""A table over several tasks, `task=a,b`: a line for each, and what has to hold of them together."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from peftbench.errors import UserError
from peftbench.sweeps.request import TableRequest, key_of, last_value

T = TypeVar("T")

_OF_ONE_TASK = ("until", "explain_spread")
_OFF = ("null", "false")


def split_tasks(argv: Sequence[str]) -> list[list[str]]:
    """Return a line for each task of `task=a,b`; of one task the line itself.

    Raises UserError where a task is named twice, and for what looks at the scores of one task.
    """
    names = (last_value(argv, "task") or "").split(",")
    if len(names) < 2:
        return [list(argv)]
    if names[0].startswith("["):
        raise UserError(f"task={','.join(names)}: write several tasks as task=a,b, without brackets")
    wrong = next((name for name in names if not name or names.count(name) > 1), None)
    if wrong is not None:
        raise UserError(f"task={','.join(names)} names {f'{wrong!r} twice' if wrong else 'an empty task'}")
    for line in argv:
        if key_of(line) in _OF_ONE_TASK and line.partition("=")[2] not in _OFF:
            raise UserError(f"{line} looks at the scores of one task: ask for one task at a time")
    others = [line for line in argv if key_of(line) != "task"]
    return [[*others, f"task={name}"] for name in names]


def read_each(lines: Sequence[Sequence[str]], read: Callable[[Sequence[str]], T]) -> list[T]:
    """Return what `read` makes of the line of each task; a UserError of some tasks alone begins with the task."""
    results: list[T] = []
    for line in lines:
        try:
            results.append(read(line))
        except UserError as error:
            task = f"task={last_value(line, 'task')}"
            if task in str(error) or all(_mistake(other, read) == str(error) for other in lines):
                raise
            raise UserError(f"{task}: {error}") from error
    return results


def _mistake(line: Sequence[str], read: Callable[[Sequence[str]], object]) -> str | None:
    try:
        read(line)
    except UserError as error:
        return str(error)
    return None


def check_tasks(requests: Sequence[TableRequest]) -> None:
    """Raise UserError where the requests of several tasks are not of a task each, which all rows of it have."""
    seen: set[str] = set()
    for request in requests if len(requests) > 1 else ():
        labels = {row.label for row in request.spec.rows}
        shown = [run for run in request.planned if run.label in labels]
        first = shown[0].config["task"]["name"]
        other = next((run for run in shown if run.config["task"]["name"] != first), None)
        if other is not None:
            name = other.config["task"]["name"]
            raise UserError(f"row {other.label!r} is of task {name} whatever task=… says: ask for one task at a time")
        if first in seen:
            raise UserError(f"two of the tasks are called {first} (`name` in their files, or set by every row)")
        seen.add(first)

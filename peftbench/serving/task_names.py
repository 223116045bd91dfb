"""The names of registered tasks as errors tell them: what a client sent is of any length, and so is their list."""

from collections.abc import Collection
from difflib import get_close_matches

from peftbench.errors import nearest

_TASKS_NAMED = 10  # of many
_MOST = 60


def shortened(text: str) -> str:
    """Return the beginning of a text, as much as a line has room for, without line breaks."""
    shown = " ".join(text[:_MOST].split())
    return shown if len(text) <= _MOST else f"{shown}…"


def no_task(name: object, tasks: Collection[str]) -> str:
    """Return that no task is registered under a name, and the nearest of those that are."""
    shown = shortened(str(name))
    known = get_close_matches(shown, tasks, n=3) or list(tasks)[:_TASKS_NAMED]
    return f"no task {shown!r} is registered. {nearest(shown, known)}"

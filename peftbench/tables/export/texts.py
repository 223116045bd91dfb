"""Texts as they can be shown: control characters become escapes such as `\\x1b`."""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from peftbench.terminal import printable

Shown = TypeVar("Shown")


def printable_texts(value: Shown) -> Shown:
    """Return a table, or any plain data, with the control characters and line ends of all its texts escaped."""
    escaped: Shown = _escaped(value)
    return escaped


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value).replace("\n", "\\n")
    if isinstance(value, list):
        return [_escaped(entry) for entry in value]
    if isinstance(value, dict):
        return {_escaped(key): _escaped(entry) for key, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _escaped(getattr(value, field.name)) for field in fields(value)})
    return value

"""Texts as they can be shown: control characters become escapes such as `\\x1b`."""

import unicodedata
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

Shown = TypeVar("Shown")

# control and format characters (these turn text around or hide it), surrogates, line and paragraph separators
_ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(value: Shown) -> Shown:
    """Return a table, or any text or plain data, with the control characters of all its texts escaped."""
    escaped: Shown = _printable(value)
    return escaped


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(_escape(letter) for letter in value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _printable(getattr(value, field.name)) for field in fields(value)})
    return value


def _escape(letter: str) -> str:
    if unicodedata.category(letter) not in _ESCAPED_CATEGORIES:
        return letter
    return letter.encode("unicode_escape").decode()

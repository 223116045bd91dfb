"""The form of what stands in a table's file: whatever YAML can hold may stand there, and a wrong form is one line."""

from collections.abc import Mapping
from typing import Any

from peftbench.errors import UserError, nearest
from peftbench.files import is_number
from peftbench.tables.columns import COLUMNS


def check_list(raw: Any, what: str) -> None:
    """Raise UserError for anything but a list, or nothing."""
    if raw is not None and not isinstance(raw, list):
        raise UserError(f"{what} must be a list, not {raw!r}")


def check_keys(raw: Mapping[str, Any], known: Any, where: str) -> None:
    """Raise UserError for a key that is not among those `known`."""
    for key in raw:
        if key not in known:
            raise UserError(f"{where} has no key {key!r}. {nearest(str(key), known)}")


def check_column(key: Any, where: str) -> None:
    """Raise UserError for anything but the key of a column."""
    if not isinstance(key, str) or key not in COLUMNS:
        raise UserError(f"{where}: there is no column {key!r}. {nearest(str(key), COLUMNS)}")


def by_column(raw: Any, where: str, what: str) -> dict[str, Any]:
    """Return what stands by columns, such as `{accuracy: 80}`; empty where there is nothing."""
    if not isinstance(raw, Mapping | None):
        raise UserError(f"{where}: {what} must be by column, such as {{accuracy: 80}}, not {raw!r}")
    for key in raw or {}:
        check_column(key, where)
    return dict(raw or {})


def figures(raw: Any, where: str, what: str) -> dict[str, float]:
    """Return numbers by column; empty where there are none."""
    found = by_column(raw, where, what)
    for key, figure in found.items():
        if not is_number(figure):
            raise UserError(f"{where}: {what}: {key} must be a number, not {figure!r}")
    return found


def label_of(raw: Any, where: str) -> str:
    """Return a row's label as text: it may look like a number, but not be empty."""
    if isinstance(raw, str | int | float) and str(raw).strip():
        return str(raw)
    raise UserError(f"{where}: the label must be a text, not {raw!r}")

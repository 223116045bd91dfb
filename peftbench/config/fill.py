"""From the plain values of a config group to its dataclass."""

from collections.abc import Mapping
from dataclasses import MISSING, is_dataclass
from typing import Any

from peftbench.config.values import typed
from peftbench.errors import UserError, nearest


def fill(cls: type, values: Any, group: str) -> Any:
    """Build the dataclass `cls` from plain values of the config group `group`, each converted to its type.

    Raises UserError for an unknown or missing key, a wrong type or a value out of range.
    """
    assert is_dataclass(cls)
    names = {name: field for name, field in cls.__dataclass_fields__.items() if field.init}
    required = [name for name, field in names.items() if field.default is MISSING and field.default_factory is MISSING]
    values = as_group(values, group)
    for name in required:
        if name not in values:
            raise UserError(f"{group} lacks {name!r}: set {group}.{name}=…")
    for key in values:
        if key not in names:
            raise UserError(f"{group} has no key {key!r}. {nearest(key, names)}")
    return cls(**{key: typed(cls, key, value, f"{group}.{key}") for key, value in values.items()})


def as_group(value: Any, group: str) -> dict[str, Any]:
    """Return a config group as a new dict; UserError where it is none."""
    if not isinstance(value, Mapping):
        raise UserError(f"{group}={value} must have keys and values")
    return dict(value)

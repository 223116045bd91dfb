"""Plain values, of YAML or a record, to the types that a dataclass declares, and to the line that a user would type.

Nothing in them is resolved or run.
"""

import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from peftbench.errors import UserError
from peftbench.files import is_unicode

_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")


def typed(cls: type, field: str, value: Any, shown: str) -> Any:
    """Return `value` as the type of `cls`'s field: `"3"` is an int, `1` a float, an interpolation `${…}` mere text.

    Raises UserError, naming the value `shown`, where it is of another type, NaN or infinite, or no UTF-8 text.
    """
    hint = get_type_hints(cls)[field]
    try:
        return _convert(value, hint)
    except _RefusedError as error:
        raise UserError(f"{shown}={value} {error}") from None
    except (ValueError, TypeError):
        written = getattr(hint, "__name__", "") if get_origin(hint) is None else str(hint)
        raise UserError(f"{shown}={value} is not of type {written}") from None


class _RefusedError(ValueError):
    """A value of the right type that cannot be used; says what it must be."""


def _convert(value: Any, hint: Any) -> Any:
    """Convert one value; raises ValueError or TypeError where it is of another type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _first_that_fits(value, arguments)
    if origin is list:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [_convert(entry, arguments[0]) for entry in value]
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, arguments[0]) for key in value):
            raise TypeError
        return {key: _convert(entry, arguments[1]) for key, entry in value.items()}
    if hint in (bool, int, float, str):
        return _SCALARS[hint](value)
    if isinstance(value, hint):
        return value
    raise TypeError


def _first_that_fits(value: Any, hints: tuple[Any, ...]) -> Any:
    if value is None and type(None) in hints:
        return None
    for hint in hints:
        try:
            return _convert(value, hint)
        except _RefusedError:
            raise
        except (ValueError, TypeError):
            continue
    raise TypeError


def _bool(value: Any) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    raise TypeError


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _RefusedError("must be a finite number")
    return number


def _str(value: Any) -> str:
    if not isinstance(value, str | bool | int | float):
        raise TypeError
    if not is_unicode(text := str(value)):
        raise _RefusedError("must be UTF-8 text")
    return text


_SCALARS = {bool: _bool, int: _int, float: _float, str: _str}


def settings_line(values: Mapping[str, Any]) -> str:
    """Write settings as they are typed on the command line: `rank=8 targets=[query,value]`."""
    return " ".join(f"{key}={_as_typed(value)}" for key, value in values.items())


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_as_typed, value))}]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return str(value) if value != "" else "''"

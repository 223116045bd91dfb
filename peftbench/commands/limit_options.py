"""Options that say what an answer may cost: memory, latency, parameter share."""

import math
import re

from peftbench.errors import UserError

# MiB in one of a unit
_UNITS = {"K": 2**-10, "M": 1.0, "G": 2**10, "T": 2**20}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", re.IGNORECASE)


def mebibytes(option: str, text: str | None) -> float | None:
    """Return a size such as `2G` in MiB; None where it is not given. UserError where it is malformed."""
    if text is None:
        return None
    found = _MEMORY.fullmatch(text.strip())
    size = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if not 0 < size < math.inf:
        raise UserError(f"{option} {text[:40]} must be a size with its unit, such as 2G or 900M")
    return size


def latency_ratio(option: str, text: str | None) -> float | None:
    """Return a ratio such as `1.05`; None where it is not given. UserError where it is malformed."""
    return _number(option, text, text, "a ratio to the bare backbone's and no percent, such as 1.05")


def percent(option: str, text: str | None) -> float | None:
    """Return percent such as `1` or `1%`; None where it is not given. UserError where it is malformed."""
    return _number(option, text, text and text.removesuffix("%"), "percent of the backbone's parameters, such as 1")


def _number(option: str, text: str | None, digits: str | None, meaning: str) -> float | None:
    if digits is None:
        return None
    try:
        value = float(digits)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{option} {text} must be {meaning}")
    return value

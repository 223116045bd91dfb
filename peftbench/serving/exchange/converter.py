"""What a converter is: one method in the terms of one library."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.serving.exchange.tie import Tensors, Tie

Settings = dict[str, Any]
_LARGEST = 3.4e38  # of fp32, which a factor is multiplied in


class Converter(NamedTuple):
    """A method's config and tensors, theirs and ours.

    Attributes:
        settings: (our config, sites) → their settings; UserError, naming the setting, for what they cannot express.
        ties: (our config, sites, the adapter's name) → where the method's tensors are in their file.
        config: (their settings, their tensors, sites) → our config; UserError for what we cannot express.
    """

    settings: Callable[[Any, Sites], Settings]
    ties: Callable[[Any, Sites, str], list[Tie]]
    config: Callable[[Settings, Tensors, Sites], Any]


def module_names(sites: Sites) -> dict[nn.Module, str]:
    """Return the names of the model's modules, those of the encoder with its own name in front."""
    return {module: name for name, module in sites.model.named_modules()}


def task_type(sites: Sites) -> str | None:
    """Return peft's name for what a model answers, which it has for texts alone."""
    return "SEQ_CLS" if sites.image is None else None


def check_settings(settings: Mapping[str, Any], known: Iterable[str], fixed: Mapping[str, Iterable[Any]]) -> None:
    """Raise UserError for a setting of theirs that would change what the method computes and is not ours.

    Args:
        settings: theirs. known: keys that are read, or mean nothing for what is computed.
        fixed: keys that may only have these values. Any other key must be empty.
    """
    for key, value in settings.items():
        if key in fixed:
            if value not in fixed[key]:
                allowed = " or ".join(_shown(choice) for choice in fixed[key])
                raise UserError(f"{key}={_shown(value)} cannot be expressed here, only {allowed}")
        elif key not in known and value not in (None, False, 0, "", [], {}):
            raise UserError(f"{key}={_shown(value)} is a setting that cannot be expressed here")


def required(settings: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """Return a setting of theirs, the default where there is none; UserError where it is missing or of another kind."""
    value = settings.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{key}={_shown(value)} is missing or not of the right kind")
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:  # NaN compares with nothing
        raise UserError(f"{key}={_shown(value)} is no number that fits into 32 bits")
    return value


def whole_number(value: float) -> float | int:
    """Return the number as an int where it is one, which is how other libraries' files have it."""
    return int(value) if float(value).is_integer() else value


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)

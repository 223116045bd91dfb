"""Dropout rates of a model: in its config, from which it is built, and in its layers."""

from typing import Any

from torch import nn


def set_config_dropout(config: Any, rate: float) -> None:
    """Set every dropout rate of a config, so that a model built from it keeps none of its own anywhere."""
    for name, value in vars(config).items():
        if "dropout" in name and isinstance(value, float | int) and not isinstance(value, bool):
            setattr(config, name, rate)


def set_dropout(module: nn.Module, rate: float) -> None:
    """Set the rate of every dropout layer, also of rates that a module keeps as plain numbers."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        for name, value in vars(part).items():
            if "dropout" in name and type(value) is float:
                setattr(part, name, rate)

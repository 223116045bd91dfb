"""Dropout rates of a model."""

from torch import nn


def set_dropout(module: nn.Module, rate: float) -> None:
    """Set the rate of every dropout layer."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate

"""Rows of a batch that are the same up to a layer pass the layers before it once."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from peftbench.backbones.sites import Sites


def repeat_rows(sites: Sites, layer: int, rows: torch.Tensor) -> Iterator[RemovableHandle]:
    """Let a batch of different rows become the whole batch where `layer` begins.

    Args:
        sites: of the backbone, which is given the different rows alone.
        layer: 0 … number of layers; the last means behind all of them.
        rows: (batch,), for each row of the whole batch the number of the one that it is.
    """
    different = int(rows.max()) + 1

    def beside(value: Any) -> Any:
        """Repeat what goes along with the rows, masks and position biases; one that stands for all stays."""
        if isinstance(value, tuple):
            return tuple(map(beside, value))
        of_rows = isinstance(value, torch.Tensor) and value.dim() > 2 and value.shape[0] == different > 1
        return value[rows] if of_rows else value

    def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        first = module is sites.layers[layer]
        if args:
            hidden, *others = args
            return (hidden[rows] if first else hidden, *map(beside, others)), _values(kwargs, beside)
        hidden = kwargs.pop("hidden_states")
        return (), {"hidden_states": hidden[rows] if first else hidden, **_values(kwargs, beside)}

    def leave(module: nn.Module, args: tuple, output: Any) -> Any:
        return (output[0][rows], *output[1:]) if isinstance(output, tuple) else output[rows]

    for following in sites.layers[layer:]:
        yield following.register_forward_pre_hook(enter, with_kwargs=True)
    if layer == len(sites.layers):
        yield sites.layers[-1].register_forward_hook(leave)


def _values(values: dict[str, Any], function: Any) -> dict[str, Any]:
    return {name: function(value) for name, value in values.items()}

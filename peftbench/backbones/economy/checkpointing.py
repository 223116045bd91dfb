"""Gradient checkpointing: a layer keeps its input alone and computes the rest again in the backward pass.

It costs a second forward pass and leaves gradients as they are; peak memory falls to about one layer's activations.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peftbench.backbones.layer_stand_ins import LayerStandIn, layers_replaced
from peftbench.backbones.sites import Sites

Context = Callable[[], AbstractContextManager[object]]


class _Checkpointed(LayerStandIn):
    """Stands in a layer's place and calls it with all its hooks, once more in the backward pass."""

    def __init__(self, layer: nn.Module, kernels: Context) -> None:
        super().__init__(layer)
        self.kernels = kernels

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return self.layer(*args, **kwargs)
        # torch's function modes are off in the backward pass
        contexts = lambda: (nullcontext(), self.kernels())  # noqa: E731
        return checkpoint(self.layer, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def checkpointed(sites: Sites, kernels: Context = nullcontext) -> AbstractContextManager[None]:
    """Checkpoint every layer inside the block; what acts on the layers must be attached before.

    Args:
        sites: of the backbone.
        kernels: gives the context that the layers compute in, which the second computation needs too.
    """
    return layers_replaced(sites, len(sites.layers), lambda _, layer: _Checkpointed(layer, kernels))

"""Gradient checkpointing: a layer keeps its input alone and computes the rest again in the backward pass.

It costs a second forward pass and leaves gradients as they are; peak memory falls to about one layer's activations.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from peftbench.backbones.sites import Sites

Context = Callable[[], AbstractContextManager[object]]


class _Checkpointed(nn.Module):
    """Stands in a layer's place and calls it with all its hooks, once more in the backward pass."""

    def __init__(self, layer: nn.Module, kernels: Context) -> None:
        super().__init__()
        self.layer, self.kernels = layer, kernels

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return self.layer(*args, **kwargs)
        # torch's function modes are off in the backward pass
        contexts = lambda: (nullcontext(), self.kernels())  # noqa: E731
        return checkpoint(self.layer, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # a model may ask its layer for more than to be called
            return getattr(self.layer, name)


@contextmanager
def checkpointed(sites: Sites, kernels: Context = nullcontext) -> Iterator[None]:
    """Checkpoint every layer inside the block; what acts on the layers must be attached before.

    Args:
        sites: of the backbone.
        kernels: gives the context that the layers compute in, which the second computation needs too.
    """
    layers = sites.base.get_submodule(sites.layout.layers)
    originals = dict(layers._modules)
    try:
        for name, layer in originals.items():
            layers._modules[name] = _Checkpointed(layer, kernels)
            layers._modules[name].train(layer.training)
        yield
    finally:
        layers._modules.update(originals)

"""Modules that stand in the places of a backbone's layers for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from peftbench.backbones.sites import Sites


class LayerStandIn(nn.Module):
    """A module in a layer's place; whatever a model asks of its layer besides calling it, the layer answers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.layer, name)


@contextmanager
def layers_replaced(sites: Sites, count: int, make: Callable[[int, nn.Module], nn.Module]) -> Iterator[None]:
    """Inside the block `make(number, layer)` stands in the place of each of the lowest `count` layers."""
    layers = sites.base.get_submodule(sites.layout.layers)
    originals = dict(list(layers._modules.items())[:count])
    try:
        for number, (name, layer) in enumerate(originals.items()):
            assert layer is not None
            layers._modules[name] = make(number, layer).train(layer.training)
        yield
    finally:
        layers._modules.update(originals)

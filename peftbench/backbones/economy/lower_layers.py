"""The layers below a method are the same in every step: what they give is computed once, and passes begin behind them.

A batch then brings the hidden states that enter the first layer which the method changes, in `COLUMN`; stand-ins take
the places of the layers below and hand them on. A batch without the column goes the whole way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftbench.backbones.inputs import IDS
from peftbench.backbones.layer_stand_ins import LayerStandIn, layers_replaced
from peftbench.backbones.probe import probe_batch, probing, second_row_alone
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError

COLUMN = "states"
_SETTING = "trainer.cache_frozen=true"
_TOLERANCE = 1e-4  # of the largest state


class _ReachedError(Exception):
    """Raised to end a forward pass once the hidden states that are asked for have been computed."""


def states_behind(sites: Sites, count: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what the lowest `count` layers give for a batch, (batch, positions, d), and compute no further.

    Positions are those of the batch; behind the last layer the first alone where no other is read (`FirstTokenOnly`).
    """
    found: list[torch.Tensor] = []

    def leave(module: nn.Module, args: tuple, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _ReachedError

    handle = sites.layers[count - 1].register_forward_hook(leave)
    try:
        sites.model(**batch)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return found[0].detach()


@torch.no_grad()
def check_lower_layers(sites: Sites, count: int) -> None:
    """Raise UserError where what the lowest `count` layers give differs from pass to pass, or cannot be handed on.

    Args:
        sites: of the headed backbone, with nothing attached.
    """
    architecture = type(sites.base).__name__
    batch = probe_batch(sites)
    with probing(sites.model):
        sites.model.train()
        first, second = (states_behind(sites, count, batch) for _ in range(2))
        if not torch.allclose(first, second, rtol=1e-5, atol=1e-6):
            raise UserError(
                f"{_SETTING}: dropout, or chance of another kind, changes what the frozen layers give: set"
                " model.dropout=0"
            )
        sites.model.eval()
        by_itself = second_row_alone(batch)
        alone = states_behind(sites, count, by_itself)[0]
        together = states_behind(sites, count, batch)[1]
        if IDS in batch:  # behind its tokens the row is padded
            together = together[: by_itself[IDS].shape[1]]
        if (IDS in batch and first.shape[:2] != batch[IDS].shape) or alone.shape != together.shape:
            raise UserError(f"{_SETTING} does not fit {architecture}, whose layers have other positions than the batch")
        if (together - alone).abs().max() > _TOLERANCE * together.abs().max():
            raise UserError(f"{_SETTING}: padding changes what the layers of {architecture} give: leave it out")
        whole = sites.model(**batch).logits
        with beginning_behind(sites, count):
            given = sites.model(**batch, **{COLUMN: states_behind(sites, count, batch)}).logits
    if not torch.allclose(whole, given, rtol=1e-4, atol=1e-5):
        raise UserError(f"{_SETTING} does not fit {architecture}, whose layers take more than one another's output")


@torch.no_grad()
def _others(sites: Sites, count: int) -> list[int | None]:
    """Return for each layer how many outputs follow the hidden states in its tuple; None where it returns no tuple."""
    found: list[int | None] = []

    def look(module: nn.Module, args: tuple, output: Any) -> None:
        found.append(len(output) - 1 if isinstance(output, tuple) else None)

    handles = [layer.register_forward_hook(look) for layer in sites.layers[:count]]
    try:
        with probing(sites.model):
            states_behind(sites, count, probe_batch(sites))
    finally:
        for handle in handles:
            handle.remove()
    return found


class _Given(LayerStandIn):
    """Replaces a skipped layer: returns what enters it, or in the last one's place the states that the batch brings."""

    def __init__(self, layer: nn.Module, given_states: list[torch.Tensor], last: bool, others: int | None) -> None:
        super().__init__(layer)
        self.last, self.others = last, others
        self._given_states = given_states

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._given_states:
            return self.layer(*args, **kwargs)
        states = self._given_states[0] if self.last else args[0] if args else kwargs["hidden_states"]
        return states if self.others is None else (states, *[None] * self.others)


@contextmanager
def beginning_behind(sites: Sites, count: int) -> Iterator[None]:
    """Inside the block, batches with hidden states in `COLUMN` skip the lowest `count` layers."""
    given_states: list[torch.Tensor] = []
    others = _others(sites, count)

    def take(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        given_states[:] = [kwargs.pop(COLUMN)] if COLUMN in kwargs else []
        return args, kwargs

    def given(number: int, layer: nn.Module) -> _Given:
        return _Given(layer, given_states, number == count - 1, others[number])

    handle = sites.model.register_forward_pre_hook(take, with_kwargs=True)
    try:
        with layers_replaced(sites, count, given):
            yield
    finally:
        handle.remove()

"""Attach a method, and around it what spares computing and leaves the mathematics as it is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import nn

from peftbench.backbones.economy.checkpointing import checkpointed
from peftbench.backbones.economy.cpu import CheapOnCpu
from peftbench.backbones.economy.first_token import FirstTokenOnly
from peftbench.backbones.economy.frozen import frozen_in_bf16
from peftbench.backbones.sites import Sites


class Attachable(Protocol):
    """A method, as `peftbench.methods.base.Method` is."""

    @property
    def keeps_first_token(self) -> bool:
        """Whether the first token of what enters the last layer is still the model's own."""

    def on(self, sites: Sites) -> AbstractContextManager[None]:
        """Attach for the length of a `with` block."""

    def merge(self) -> None:
        """Fold the method, attached, into the backbone's weights."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters that it trains."""


@contextmanager
def economical(
    sites: Sites,
    method: Attachable,
    reads_first_token_only: bool,
    precision: str,
    compiled: bool = False,
    merged: bool = False,
    checkpointing: bool = False,
) -> Iterator[None]:
    """Attach `method` to the backbone inside the block: cheap kernels on a CPU, no token that nobody reads.

    Args:
        sites: of the backbone.
        method: detached.
        reads_first_token_only: whether the head reads the first token alone (`head_reads_first_token`).
        precision: fp32, or bf16, in which the frozen weights are held then; the caller's forward runs in autocast.
        compiled: the model will go through torch.compile, which brings kernels of its own.
        merged: fold the method into the backbone's weights.
        checkpointing: compute each layer again in the backward pass instead of keeping what it holds.
    """

    def kernels() -> AbstractContextManager[object]:
        return nullcontext() if compiled else cheap_kernels(sites.device)

    with (
        kernels(),
        attached(sites, method, reads_first_token_only, precision, merged),
        checkpointed(sites, kernels) if checkpointing else nullcontext(),
    ):
        yield


def cheap_kernels(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which this thread's models compute with the cheaper functions for a CPU, on a CPU."""
    return CheapOnCpu() if device.type == "cpu" else nullcontext()


@contextmanager
def attached(
    sites: Sites, method: Attachable, reads_first_token_only: bool, precision: str, merged: bool = False
) -> Iterator[None]:
    """Attach `method` inside the block as `economical` does, without the CPU kernels, which each thread sets itself."""
    with ExitStack() as stack:
        stack.enter_context(method.on(sites))
        if merged:  # in fp32, and rounded once
            method.merge()
        if reads_first_token_only and method.keeps_first_token:
            stack.callback(FirstTokenOnly(sites).remove)
        if precision == "bf16":
            stack.enter_context(frozen_in_bf16(sites.base, trained=method.parameters()))
        yield

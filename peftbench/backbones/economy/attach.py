"""Attach a method, and around it what spares computing and leaves the mathematics as it is."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol

import torch

from peftbench.backbones.economy.cpu import CheapOnCpu
from peftbench.backbones.economy.first_row import FirstRow
from peftbench.backbones.sites import Sites


class Attachable(Protocol):
    """A method, as `peftbench.methods.base.Method` is."""

    @property
    def keeps_first_row(self) -> bool:
        """Whether row 0 of the last layer's input is still the model's own first token."""

    def on(self, sites: Sites) -> AbstractContextManager[None]:
        """Attach for the length of a `with` block."""


@contextmanager
def economical(sites: Sites, method: Attachable, first_row: bool, compiled: bool = False) -> Iterator[None]:
    """Attach `method` to the backbone inside the block: cheap kernels on a CPU, no row that nobody reads.

    Args:
        sites: of the backbone.
        method: detached.
        first_row: whether the head reads the first token alone (`reads_first_row`).
        compiled: the model will go through torch.compile, which brings kernels of its own.
    """
    with nullcontext() if compiled else cheap_kernels(sites.device), attached(sites, method, first_row):
        yield


def cheap_kernels(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which this thread's models compute with the cheaper functions for a CPU, on a CPU."""
    return CheapOnCpu() if device.type == "cpu" else nullcontext()


@contextmanager
def attached(sites: Sites, method: Attachable, first_row: bool) -> Iterator[None]:
    """Attach `method` inside the block and leave out the rows that nobody reads, whichever thread computes."""
    with ExitStack() as stack:
        stack.enter_context(method.on(sites))
        if first_row and method.keeps_first_row:
            stack.callback(FirstRow(sites).remove)
        yield

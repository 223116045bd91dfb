"""Small forward passes that find out how a model behaves and leave no trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftbench.backbones.inputs import IDS, half_padded, random_inputs, small_size
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError, first_line

ROWS, LENGTH, SHORT = 3, 8, 5  # of a probe's batch: its second row is short and padded


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Inside the block the model may be run in any mode; behind it is as before, torch's random state too.

    Some models rewrite themselves while they run (BigBird ends sparse attention at the first short batch): their
    plain attributes, submodules and buffers are put back.
    """
    before = [(module, _state(module)) for module in model.modules()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for module, (attributes, modules, buffers) in before:
                vars(module).update(attributes)
                module._modules.clear()
                module._modules.update(modules)
                for buffer, value in buffers:
                    buffer.copy_(value)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of the model's code into one line, a UserError."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError) as error:
        raise UserError(f"{what}: {first_line(error)}") from error


def rewritten(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """Return what a model that rewrites itself would change: its submodules and plain attributes now."""
    return {module: {**_plain(module), **module._modules} for module in model.modules()}


def probe_batch(sites: Sites) -> dict[str, torch.Tensor]:
    """Return ROWS examples: token ids, (ROWS, LENGTH), and their mask, of which the second row is padded; or images.

    The second row has SHORT tokens and then padding.
    """
    if sites.image is not None:
        return random_inputs(sites, ROWS, small_size(sites, LENGTH))
    return half_padded(sites, ROWS, LENGTH, SHORT)


def second_row_alone(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the second row of a probe's batch by itself, without padding and mask."""
    return {IDS: batch[IDS][1:2, :SHORT]} if IDS in batch else {name: rows[1:2] for name, rows in batch.items()}


def _state(module: nn.Module) -> tuple[dict[str, Any], dict[str, nn.Module | None], list[tuple]]:
    buffers = [(b, b.clone()) for b in module._buffers.values() if b is not None and b.device.type != "meta"]
    return {**_plain(module), "training": module.training}, dict(module._modules), buffers


def _plain(module: nn.Module) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if name != "training" and isinstance(value, bool | int | float | str | None)
    }

"""How a method's examples can share a forward pass with those of other methods: found by trying a small batch."""

from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any, NamedTuple

import torch

from peftbench.backbones.inputs import half_padded
from peftbench.backbones.probe import probing
from peftbench.backbones.rows import Rows
from peftbench.errors import UserError
from peftbench.methods import Method
from peftbench.methods.stacking import stacked, with_tensors
from peftbench.methods.unchanged import WhileUnchanged
from peftbench.serving.mixing import Mixer
from peftbench.training.devices import full_precision

_ROWS, _LENGTH, _SHORT = 6, 9, 5  # no dimension of a batch is as long as another
_NOISE = 0.05
# whatever a method of another package, or a model, makes of a part of the batch
_FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, UserError)
_TOLERANCE = 1e-4  # of the largest logit, in fp32


class BatchMode(StrEnum):
    """How the rows of a batch that belong to the tasks of one method are answered.

    Attributes:
        STACKED: several tasks in one batched product over their stacked tensors; each must have as many rows.
        SLICED: in a pass with other tasks; the method's hooks get the slice of its own task's rows.
        ALONE: in a pass of their own, one task at a time.
    """

    STACKED = "stacked"
    SLICED = "sliced"
    ALONE = "alone"


class BatchSupport(NamedTuple):
    """What trying a method on a small batch has shown.

    Attributes:
        mode: the fastest that gives the right answers.
        memory_factor: bytes that the method holds once it has answered (tensors it derives from its own are kept),
            divided by those of its own tensors; 1 or more.
    """

    mode: BatchMode
    memory_factor: float


@full_precision()
def probe_batch_mode(prototype: Method, mixer: Mixer) -> BatchSupport:
    """Return the fastest mode in which a method's rows get the answers that they get in a pass of their own.

    Each mode is tried on one batch of six rows: two for each of two sets of random tensors, two for the bare backbone.

    Args:
        prototype: the method, built but not attached; its tensors set the shapes. mixer: of the backbone.
    """
    mixer = replace(mixer, precision="fp32")
    first, second = (_shaken(prototype, seed) for seed in range(2))
    batch = half_padded(mixer.backbone.sites, _ROWS, _LENGTH, _SHORT)
    memory_factor = 1.0
    with probing(mixer.backbone.model), suppress(*_FAILURES):
        mixer.backbone.model.eval()
        bare = mixer.logits(batch, [], [])
        methods = [with_tensors(prototype, tensors) for tensors in (first, second)]
        alone = [mixer.logits(batch, [(method, Rows(_ROWS, 0, _ROWS))], []) for method in methods]
        memory_factor = held_bytes(methods[0]) / max(1, sum(tensor.nbytes for tensor in first.values()))
        expected = torch.cat([alone[0][:2], alone[1][2:4], bare[4:]])
        attempts = {
            BatchMode.STACKED: [(stacked(prototype, [first, second]), Rows(_ROWS, 0, 2, groups=2))],
            BatchMode.SLICED: [
                (with_tensors(prototype, tensors), Rows(_ROWS, start, 2))
                for tensors, start in ((first, 0), (second, 2))
            ],
        }
        for mode, acting in attempts.items():
            with suppress(*_FAILURES):
                found = mixer.logits(batch, acting, [])
                if float((found - expected).abs().max()) <= _TOLERANCE * float(expected.abs().max()):
                    return BatchSupport(mode, memory_factor)
    return BatchSupport(BatchMode.ALONE, memory_factor)


def held_bytes(method: Method) -> int:
    """Return the bytes of all tensors that a method holds: its own and those derived from them."""
    found: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, WhileUnchanged):
            look(value.kept)
        elif isinstance(value, dict):
            look(list(value.values()))
        elif isinstance(value, list | tuple):
            for each in value:
                look(each)

    for module in method.modules():
        look(vars(module))
    return sum(found.values())


@full_precision()
def shares_layers(mixer: Mixer) -> bool:
    """Tell whether the answers stay the same where repeated rows pass the lower layers once and are then repeated."""
    mixer, batch = replace(mixer, precision="fp32"), half_padded(mixer.backbone.sites, _ROWS, _LENGTH, _SHORT)
    rows = torch.tensor([0, 2, 1, 0, 5, 4, 3, 0], device=mixer.backbone.sites.device)
    layers = len(mixer.backbone.sites.layers)
    with probing(mixer.backbone.model):
        mixer.backbone.model.eval()
        whole = mixer.logits({name: column[rows] for name, column in batch.items()}, [], [])
        with suppress(*_FAILURES):  # of a layer that takes no more rows than came in, or a head that reads the mask
            found = [mixer.logits(batch, [], [], (layer, rows)) for layer in (layers // 2, layers)]
            return all(torch.allclose(each, whole, rtol=_TOLERANCE, atol=_TOLERANCE) for each in found)
    return False


def _shaken(prototype: Method, seed: int) -> dict[str, torch.Tensor]:
    """Return the method's tensors with noise added, so that it acts also where it starts as the identity."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + _NOISE * torch.randn(tensor.shape, generator=generator).to(tensor)
        for name, tensor in prototype.state_dict().items()
    }

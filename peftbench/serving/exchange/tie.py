"""Ties: which tensor of a method is which in another library's file, the same list for both directions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from peftbench.errors import UserError

Tensors = dict[str, torch.Tensor]
Region = tuple[slice, ...]


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class Tie:
    """One tensor of a method and its place in the other library's file.

    Attributes:
        foreign_key: key in that file.
        state_key: name in the method's `state_dict`; None where the file's tensor is `blank` whatever was trained.
        index: of the method's tensor in a stack.
        forth: from the method's tensor to what stands in the file's. back: its inverse.
        region: the part of the file's tensor that it fills, all without one. blank: the file's before it is filled.
    """

    foreign_key: str
    state_key: str | None
    index: int | None = None
    forth: Callable[[torch.Tensor], torch.Tensor] = _same
    back: Callable[[torch.Tensor], torch.Tensor] = _same
    region: Region | None = None
    blank: Callable[[], torch.Tensor] | None = None


def reshaped(foreign_key: str, state_key: str, foreign_shape: tuple[int, ...], state_shape: tuple[int, ...]) -> Tie:
    """Return the tie of a tensor that both have, in different shapes."""
    return Tie(
        foreign_key,
        state_key,
        forth=lambda tensor: tensor.reshape(foreign_shape),
        back=lambda tensor: tensor.reshape(state_shape),
    )


def to_foreign(ties: Iterable[Tie], state: Tensors) -> Tensors:
    """Return the tensors of the file, filled from the method's."""
    foreign: Tensors = {}
    for tie in ties:
        if tie.blank is not None and tie.foreign_key not in foreign:
            foreign[tie.foreign_key] = tie.blank().detach().clone()
        if tie.state_key is None:
            continue
        value = tie.forth(_in_state(tie, state).detach())
        if tie.region is None:
            foreign[tie.foreign_key] = value.contiguous()
        else:
            foreign[tie.foreign_key][tie.region] = value
    return foreign


@torch.no_grad()
def from_foreign(ties: Iterable[Tie], foreign: Tensors, state: Tensors) -> None:
    """Fill the method's tensors, which have their shapes already, from those of the file.

    Raises UserError for a tensor of the file that is missing or of another size, for one that has no place here and
    for values that would be lost.
    """
    ties = list(ties)
    expected = to_foreign(ties, state)
    for key, tensor in expected.items():
        if key not in foreign:
            raise UserError(f"the weights lack {key}")
        if foreign[key].shape != tensor.shape:
            sizes = (" × ".join(map(str, shape)) or "one number" for shape in (foreign[key].shape, tensor.shape))
            raise UserError(f"{key} is of another base model: {' where the model has '.join(sizes)}")
    if unknown := sorted(set(foreign) - set(expected)):
        raise UserError(f"the weights hold {unknown[0]}, which has no place in peftbench")
    for tie in ties:
        if tie.state_key is not None:
            value = foreign[tie.foreign_key] if tie.region is None else foreign[tie.foreign_key][tie.region]
            _in_state(tie, state).copy_(tie.back(value))
    for key, tensor in to_foreign(ties, state).items():
        if not torch.equal(tensor, foreign[key].to(tensor.dtype)):
            raise UserError(f"{key} holds values that have no place in peftbench")


def _in_state(tie: Tie, state: Tensors) -> torch.Tensor:
    assert tie.state_key is not None
    return state[tie.state_key] if tie.index is None else state[tie.state_key][tie.index]

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
    """One tensor of ours and its place in theirs.

    Attributes:
        theirs: key in their file.
        ours: name in the method's `state_dict`; None where theirs is `blank` whatever was trained.
        index: of ours in a stack.
        forth: from ours to what stands in theirs. back: its inverse.
        region: the part of theirs that ours fills, all of it without one. blank: theirs before it is filled.
    """

    theirs: str
    ours: str | None
    index: int | None = None
    forth: Callable[[torch.Tensor], torch.Tensor] = _same
    back: Callable[[torch.Tensor], torch.Tensor] = _same
    region: Region | None = None
    blank: Callable[[], torch.Tensor] | None = None


def reshaped(theirs: str, ours: str, shape: tuple[int, ...], own_shape: tuple[int, ...]) -> Tie:
    """Return the tie of a tensor that both have, in different shapes."""
    return Tie(theirs, ours, forth=lambda tensor: tensor.reshape(shape), back=lambda tensor: tensor.reshape(own_shape))


def to_theirs(ties: Iterable[Tie], ours: Tensors) -> Tensors:
    """Return their tensors, filled from ours."""
    theirs: Tensors = {}
    for tie in ties:
        if tie.blank is not None and tie.theirs not in theirs:
            theirs[tie.theirs] = tie.blank().detach().clone()
        if tie.ours is None:
            continue
        value = tie.forth(_own(tie, ours).detach())
        if tie.region is None:
            theirs[tie.theirs] = value.contiguous()
        else:
            theirs[tie.theirs][tie.region] = value
    return theirs


@torch.no_grad()
def from_theirs(ties: Iterable[Tie], theirs: Tensors, ours: Tensors) -> None:
    """Fill our tensors, which have their shapes already, from theirs.

    Raises UserError for a tensor of theirs that is missing or of another size, for one that has no place here and
    for values that would be lost.
    """
    ties = list(ties)
    expected = to_theirs(ties, ours)
    for key, tensor in expected.items():
        if key not in theirs:
            raise UserError(f"the weights lack {key}")
        if theirs[key].shape != tensor.shape:
            sizes = (" × ".join(map(str, shape)) or "one number" for shape in (theirs[key].shape, tensor.shape))
            raise UserError(f"{key} is of another base model: {' where the model has '.join(sizes)}")
    if unknown := sorted(set(theirs) - set(expected)):
        raise UserError(f"the weights hold {unknown[0]}, which has no place in peftbench")
    for tie in ties:
        if tie.ours is not None:
            value = theirs[tie.theirs] if tie.region is None else theirs[tie.theirs][tie.region]
            _own(tie, ours).copy_(tie.back(value))
    for key, tensor in to_theirs(ties, ours).items():
        if not torch.equal(tensor, theirs[key].to(tensor.dtype)):
            raise UserError(f"{key} holds values that have no place in peftbench")


def _own(tie: Tie, ours: Tensors) -> torch.Tensor:
    assert tie.ours is not None
    return ours[tie.ours] if tie.index is None else ours[tie.ours][tie.index]

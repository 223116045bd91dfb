"""One method's tensors of several trainings, stacked, so that each group of a batch's rows meets its own.

Stacked, every tensor has one more dimension in front, (groups, …), and a site's input comes as (groups, rows, d).
A method whose mathematics takes both, for the most part because its products are `linear`, computes all groups at once.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.methods.base import Method


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x·Wᵀ + b, of each group with its own W.

    Args:
        x: (..., d_in), or (groups, rows, d_in).
        weight: (d_out, d_in), or stacked (groups, d_out, d_in).
        bias: (d_out,), shared or stacked (groups, d_out).
    """
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    if bias is None:
        return torch.bmm(x, weight.mT)
    return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)


def with_tensors(prototype: Method, tensors: Mapping[str, torch.Tensor]) -> Method:
    """Return a method like the prototype, detached, whose tensors are these, by the names of its `state_dict`.

    They are taken as they are, without a copy, and do not train.
    """
    prototype_tensors = [*prototype.parameters(), *prototype.buffers()]
    method = copy.deepcopy(prototype, {id(tensor): tensor for tensor in prototype_tensors})  # all but the tensors
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = method.get_submodule(path)
        if leaf in module._buffers:
            module._buffers[leaf] = tensor
        else:
            module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    return method.eval()


def stacked(prototype: Method, trainings: Sequence[Mapping[str, torch.Tensor]]) -> Method:
    """Return a method like the prototype that holds the tensors of several trainings, each (groups, …)."""
    if len(trainings) == 1:
        return with_tensors(prototype, trainings[0])
    return with_tensors(prototype, {name: torch.stack([t[name] for t in trainings]) for name in trainings[0]})

"""Folding: a method's effect on linear maps, written into their weights and biases."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from peftbench.backbones.attachments import Folding, Parameters
from peftbench.backbones.site import Site

# from a linear map's weight, (d_out, d_in), and bias, (d_out,) or None, to those of the map with the method in it
Fold = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]]


def folding(folds: Iterable[tuple[Site, Fold]]) -> Folding:
    """Return what puts folded weights and biases in the place of those of the sites' modules."""
    by_module: dict[nn.Module, list[tuple[Site, Fold]]] = defaultdict(list)
    for site, fold in folds:
        by_module[site.module].append((site, fold))
    sites = [site for parts in by_module.values() for site, _ in parts]
    return Folding(sites, {module: partial(fold_parts, parts) for module, parts in by_module.items()})


@torch.no_grad()
def fold_parts(parts: list[tuple[Site, Fold]], before: Parameters) -> dict[str, nn.Parameter]:
    """Return new weight and bias of a module with every fold of its sites done; `before` stays as it is.

    A bias appears where a fold gives a map one that had none.
    """
    weight, bias = before["weight"], before.get("bias")
    assert weight is not None
    new_weight, new_bias = weight.detach().clone(), None if bias is None else bias.detach().clone()
    for site, fold in parts:
        folded_weight, folded_bias = fold(site.weight_of(new_weight), site.bias_of(new_bias))
        site.weight_of(new_weight).copy_(folded_weight)
        if folded_bias is not None:
            if new_bias is None:
                new_bias = new_weight.new_zeros(new_weight.shape[1 if site.transposed else 0])
            place = site.bias_of(new_bias)
            assert place is not None
            place.copy_(folded_bias)
    put = {"weight": new_weight, **({} if new_bias is None else {"bias": new_bias})}
    return {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in put.items()}

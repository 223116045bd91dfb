"""Parameters of the backbone that some rows of a batch have their own of: biases, norms, heads, or any other."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from peftbench.backbones.rows import Rows

Tensors = dict[str, torch.Tensor]


def row_parameters(model: nn.Module, rows: Rows, tensors: Mapping[str, torch.Tensor]) -> Iterator[RemovableHandle]:
    """Let some rows of a batch be computed with `tensors` in the place of the model's parameters.

    Args:
        model: whose modules are called with the batch's rows.
        rows: which rows. tensors: by their names in the model, stacked where there are several groups of rows.

    A module that is called with anything else (DeBERTa's with relative positions) raises RuntimeError.
    """
    by_module: dict[nn.Module, Tensors] = defaultdict(dict)
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        by_module[model.get_submodule(path)][leaf] = tensor
    for module, replacements in by_module.items():
        yield module.register_forward_hook(_computed(module, rows, replacements))


def _computed(module: nn.Module, rows: Rows, replacements: Tensors) -> Callable[..., torch.Tensor]:
    """Return the hook that computes the rows anew, the cheapest way that the module allows."""
    if isinstance(module, nn.LayerNorm):
        return lambda _, args, output: rows.replace(
            output, lambda x, _: _norm(module, replacements, x, rows.groups), args[0], inplace=True
        )
    if isinstance(module, nn.Linear) and "weight" in replacements:
        return lambda _, args, output: _linear(module, rows, replacements, args[0], output)
    if isinstance(module, nn.Linear | Conv1D) and set(replacements) == {"bias"}:
        added = (replacements["bias"] - module.bias).unsqueeze(-2)
        return lambda _, args, output: rows.replace(output, lambda out: out + added.to(out.dtype), inplace=True)
    return lambda _, args, output: _one_by_one(module, rows, replacements, args, output)


def _norm(module: nn.LayerNorm, replacements: Tensors, x: torch.Tensor, groups: int) -> torch.Tensor:
    weight, bias = replacements.get("weight", module.weight), replacements.get("bias", module.bias)
    if groups == 1:
        return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
    normed = F.layer_norm(x, module.normalized_shape, None, None, module.eps)
    weight = weight.unsqueeze(-2)
    return normed * weight if bias is None else torch.addcmul(bias.unsqueeze(-2), normed, weight)


def _linear(
    module: nn.Linear, rows: Rows, replacements: Tensors, x: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    weight, bias = replacements["weight"], replacements.get("bias", module.bias)
    if rows.groups == 1:
        return rows.put(output, F.linear(rows.of(x), weight, bias), inplace=True)
    product = rows.grouped(x) @ weight.mT
    if bias is not None:
        product = product + bias.unsqueeze(-2)
    return rows.put(output, product.reshape(-1, *output.shape[1:]), inplace=True)


def _one_by_one(
    module: nn.Module, rows: Rows, replacements: Tensors, args: tuple, output: torch.Tensor
) -> torch.Tensor:
    """Call the module again for each group, with its parameters in place."""
    whole = [each.expand(rows.total, *each.shape[1:]) if _is_shared(each) else each for each in args]
    output = output.expand(rows.total, *output.shape[1:])
    found = []
    for group in range(rows.groups):
        part = Rows(rows.total, rows.start + group * rows.size, rows.size)
        taken = {leaf: tensor if rows.groups == 1 else tensor[group] for leaf, tensor in replacements.items()}
        before: dict[str, Any] = dict(module._parameters)
        module._parameters.update(taken)  # type: ignore[arg-type]
        try:  # `forward`, not a call: past the hooks, this one among them
            found.append(module.forward(*(part.of(each) if isinstance(each, torch.Tensor) else each for each in whole)))
        finally:
            module._parameters.update(before)
    return rows.put(output, torch.cat(found))


def _is_shared(x: Any) -> bool:
    """Whether one row stands for all, as position ids do."""
    return isinstance(x, torch.Tensor) and x.shape[0] == 1

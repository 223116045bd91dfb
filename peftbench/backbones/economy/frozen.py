"""Frozen weights in bf16: cast once instead of at every step and, on a CPU, laid out once for oneDNN's products.

Norms, what trains, its gradients and its optimizer state stay fp32; weights and biases of linear maps, embeddings and
activations are bf16.
"""

from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

# rows that the layout is made for; it serves any number
_ROWS = 2048


class Cast:
    """A frozen weight, (d_out, d_in), or bias and what stands for it in bf16 products."""

    def __init__(self, original: torch.Tensor) -> None:
        self.original = original
        self.rounded = original.bfloat16()

    @cached_property
    def forward(self) -> torch.Tensor:
        """The rounded weight as oneDNN multiplies by it."""
        return _laid_out(self.rounded)

    @cached_property
    def backward(self) -> torch.Tensor:
        """Its transpose, made by the first backward pass."""
        return _laid_out(self.rounded.t().contiguous())


def _laid_out(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)


Casts = MutableMapping[torch.Tensor, Cast]
_HELD: Casts = WeakTensorKeyDictionary()


@contextmanager
def frozen_in_bf16(
    module: nn.Module, casts: Casts | None = None, trained: Iterable[nn.Parameter] = ()
) -> Iterator[None]:
    """Inside the block, hold the weights and biases of linear maps and embeddings that do not train in bf16.

    They are given back bit for bit.

    Args:
        module: the model, with what acts on it attached.
        casts: keeps each weight's cast for the next block, where blocks follow each other fast.
        trained: what has trained and no longer does; its casts are not kept. Embeddings among it stay: autocast rounds
            linear maps, not them.
    """
    casts = {} if casts is None else casts
    trained_ids = {id(parameter) for parameter in trained}
    held: list[nn.Parameter] = []
    try:
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                for parameter in part.parameters(recurse=False):
                    if parameter.dtype != torch.float32 or parameter.requires_grad:
                        continue
                    has_trained = id(parameter) in trained_ids
                    if has_trained and isinstance(part, nn.Embedding):
                        continue
                    cast = None if has_trained else casts.get(parameter)
                    if cast is None or cast.original.data_ptr() != parameter.data_ptr():
                        cast = Cast(parameter.data)
                    if not has_trained:
                        casts[parameter] = cast
                    _HELD[parameter] = cast
                    held.append(parameter)
                    parameter.data = cast.rounded
        yield
    finally:
        for parameter in held:
            parameter.data = _HELD.pop(parameter).original


def cast_of(weight: torch.Tensor) -> Cast | None:
    """Return what stands for a weight that is held in bf16 on a CPU that multiplies in it; None for any other."""
    return _HELD.get(weight) if weight.dtype == torch.bfloat16 and _CPU_PRODUCTS else None


_CPU_PRODUCTS = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, cast: Cast) -> torch.Tensor:
        ctx.cast = cast
        product = _product(x, cast.forward, None if bias is None else bias.to(x.dtype))
        # oneDNN's result is a view for more than two dimensions, and a view takes no in-place arithmetic
        return torch.ops.aten._unsafe_view(product, product.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        for_x, for_bias, _ = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, ctx.cast.backward, None) if for_x else None,
            flat.sum(0, dtype=torch.float32) if for_bias else None,
            None,
        )


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def linear(x: torch.Tensor, cast: Cast, bias: torch.Tensor | None) -> torch.Tensor:
    """Return x·weightᵀ + bias in bf16; x: (..., d_in), some rows; bias: (d_out,), trained or not."""
    return _Linear.apply(x.to(torch.bfloat16), bias, cast)

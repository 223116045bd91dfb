"""Computing in bf16 with what trains in fp32: frozen weights cast once, and the kernels that are slow in bf16.

Norms, biases, what trains, its gradients and its optimizer state stay fp32; weights of linear maps, embeddings and
activations are bf16.
"""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_LEVELS = 2**16
# bit patterns of bf16 numbers from -infinity up to -0, which are 0xFF80 down to 0x8000; the rest below are NaN
_NEGATIVE = 0xFF80 - 0x8000 + 1
_NUMBERS = 2 * _NEGATIVE


Copies = MutableMapping[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]


@contextmanager
def frozen_in_bf16(module: nn.Module, copies: Copies | None = None) -> Iterator[None]:
    """Inside the block, hold the weights of linear maps and embeddings that do not train in bf16.

    They are cast once instead of at every step, and given back bit for bit.

    Args:
        module: the model, with what acts on it attached.
        copies: keeps each weight and its cast for the next block, where blocks follow each other fast.
    """
    copies = {} if copies is None else copies
    originals: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for part in module.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                weight = part.weight
                if weight.dtype == torch.float32 and not weight.requires_grad:
                    data = weight.data
                    if weight not in copies or copies[weight][0].data_ptr() != data.data_ptr():
                        copies[weight] = data, data.bfloat16()
                    originals.append((weight, data))
                    weight.data = copies[weight][1]
        yield
    finally:
        for weight, data in originals:
            weight.data = data


class _Dropout(torch.autograd.Function):
    """Random 16 bits an element, read as a bf16 number: those at or below a threshold are dropped.

    This takes one pass over the tensor, where comparing integers and masking takes four.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropped: int) -> torch.Tensor:
        count = x.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        noise = words.view(torch.bfloat16)[:count].view(x.shape)
        ctx.save_for_backward(noise)
        ctx.threshold, ctx.scale = _threshold(dropped), _LEVELS / (_LEVELS - dropped)
        return torch.ops.aten.threshold_backward(x, noise, ctx.threshold).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (noise,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, noise, ctx.threshold).mul_(ctx.scale), None


def _threshold(dropped: int) -> float:
    """Return the bf16 number at or below which `dropped` of the 2¹⁶ bit patterns lie (NaN lies nowhere)."""
    pattern = 0xFF80 - dropped + 1 if dropped <= _NEGATIVE else dropped - _NEGATIVE - 1
    return torch.tensor(pattern, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).item()


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each element of x, bfloat16, with probability p (to 2⁻¹⁶, below 0.99) and scale the others."""
    return _Dropout.apply(x, round(p * _LEVELS))


class _Softmax(torch.autograd.Function):
    """Through fp32: torch's own forward in bf16 takes more than twice the time, its backward does not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = F.softmax(x, dim=-1, dtype=torch.float32).to(x.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return torch._softmax_backward_data(grad, y, -1, y.dtype)


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Return the softmax over the last dimension of x, bfloat16, computed in float32."""
    return _Softmax.apply(x)


def embedding(ids: torch.Tensor, weight: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Look rows up like `torch.nn.functional.embedding`; under autocast they come out in bf16, trained or frozen."""
    rows = F.embedding(ids, weight, *args, **kwargs)
    return rows.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else rows

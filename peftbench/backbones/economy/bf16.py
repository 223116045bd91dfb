"""Dropout, softmax, attention and embeddings in bf16 on a CPU, where torch's own are slow in it."""

from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

_LEVELS = 2**16
# above it the scale would be far from what bf16 can tell apart
MOST_DROPOUT = 0.99
# bit patterns of bf16 numbers from -infinity up to -0, which are 0xFF80 down to 0x8000; the rest below are NaN
_NEGATIVE = 0xFF80 - 0x8000 + 1
_NUMBERS = 2 * _NEGATIVE


class _Dropout(torch.autograd.Function):
    """Random 16 bits an element, read as a bf16 number: those at or below a threshold are dropped.

    This takes one pass over the tensor, where comparing integers and masking takes four.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dropped: int, scale: float) -> torch.Tensor:
        count = x.numel()
        noise = random_words((count + 3) // 4).view(torch.bfloat16)[:count].view(x.shape)
        ctx.save_for_backward(noise)
        ctx.threshold, ctx.scale = _threshold(dropped), scale
        return _drop(x, noise, ctx.threshold, scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (noise,) = ctx.saved_tensors
        return _drop(grad, noise, ctx.threshold, ctx.scale), None, None


def _drop(x: torch.Tensor, noise: torch.Tensor, threshold: float, scale: float) -> torch.Tensor:
    kept = torch.ops.aten.threshold_backward(x, noise, threshold)
    return kept if scale == 1 else kept.mul_(scale)


def random_words(count: int) -> torch.Tensor:
    """Return random int64 numbers, (count,): a counter from a random start, mixed after splitmix64.

    torch's generator gives its numbers one by one on one thread; these take all threads. Of splitmix64 (Steele, Lea
    and Flood 2014, Fast Splittable Pseudorandom Number Generators, with Stafford's constants) the last shift is left
    out, and the shifts carry the sign, as torch's do.
    """
    start = int(torch.randint(-(2**62), 2**62, ()))
    words = torch.arange(count).mul_(_signed(0x9E3779B97F4A7C15)).add_(start)
    words.bitwise_xor_(words >> 30).mul_(_signed(0xBF58476D1CE4E5B9))
    return words.bitwise_xor_(words >> 27).mul_(_signed(0x94D049BB133111EB))


def _signed(word: int) -> int:
    """Return the negative integer of the same 64 bits."""
    return word - 2**64


@cache
def _threshold(dropped: int) -> float:
    """Return the bf16 number at or below which `dropped` of the 2¹⁶ bit patterns lie (NaN lies nowhere)."""
    pattern = 0xFF80 - dropped + 1 if dropped <= _NEGATIVE else dropped - _NEGATIVE - 1
    return torch.tensor(pattern, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).item()


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each element of x, bfloat16, with probability p (to 2⁻¹⁶, below `MOST_DROPOUT`) and scale the others."""
    dropped = round(p * _LEVELS)
    return _Dropout.apply(x, dropped, _LEVELS / (_LEVELS - dropped))


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


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    scale: float,
) -> torch.Tensor:
    """softmax(q·kᵀ·scale + mask)·v for training, all bfloat16 and (batch, heads, sequence, head_dim).

    The dropout's scale is given to the values, which are fewer than the weights. A query of one row, repeated
    without a copy (`FirstRow`), is computed once.
    """
    rows = query.shape[2]
    if query.stride(2) == 0:
        query, mask = query[:, :, :1], mask if mask is None else mask[:, :, :1]
    dropped = round(dropout_p * _LEVELS)
    query, key, value = query * scale, key.contiguous(), value * (_LEVELS / (_LEVELS - dropped))
    scores = query.contiguous() @ key.transpose(2, 3)
    weights = softmax(scores if mask is None else scores + mask)
    if dropped:
        weights = _Dropout.apply(weights, dropped, 1.0)
    return (weights @ value.contiguous()).expand(-1, -1, rows, -1)


def embedding(ids: torch.Tensor, weight: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Look rows up like `torch.nn.functional.embedding`; under autocast they come out in bf16, trained or frozen."""
    rows = F.embedding(ids, weight, *args, **kwargs)
    return rows.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else rows

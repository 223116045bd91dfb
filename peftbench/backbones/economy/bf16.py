"""Dropout, attention and embeddings in bf16 on a CPU, where torch's own are slow in it."""

from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

_LEVELS = 2**16
# words: 2 MiB
_STRETCH = 2**18
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
        noise = _noise(x)
        ctx.save_for_backward(noise)
        ctx.threshold, ctx.scale = _threshold(dropped), scale
        return _drop(x, noise, ctx.threshold, scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (noise,) = ctx.saved_tensors
        return _drop(grad, noise, ctx.threshold, ctx.scale), None, None


def _noise(x: torch.Tensor) -> torch.Tensor:
    """Return 16 random bits for each element of x, in x's shape, read as bfloat16."""
    count = x.numel()
    return random_words((count + 3) // 4).view(torch.bfloat16)[:count].view(x.shape)


def _drop(x: torch.Tensor, noise: torch.Tensor, threshold: float, scale: float) -> torch.Tensor:
    kept = torch.ops.aten.threshold_backward(x, noise, threshold)
    return kept if scale == 1 else kept.mul_(scale)


def random_words(count: int) -> torch.Tensor:
    """Return random int64 numbers, (count,): stretches of a pool of random words, from two random places, xored.

    torch's generator, which gives its numbers one by one on one thread, is asked for the places alone. Within a
    stretch the words are as independent as the pool's, and any two stretches from different places of each other.
    """
    lower, upper = _pool()
    words = torch.empty(count, dtype=torch.int64)
    for start in range(0, count, _STRETCH):
        part = words[start : start + _STRETCH]
        first, second = torch.randint(_STRETCH, (2,)).tolist()
        torch.bitwise_xor(lower[first : first + len(part)], upper[second : second + len(part)], out=part)
    return words


@cache
def _pool() -> torch.Tensor:
    """Return two halves of random words, the same in every process: a run may go on in another one."""
    return torch.empty(2, 2 * _STRETCH, dtype=torch.int64).random_(-(2**63), None, generator=torch.Generator())


@cache
def _threshold(dropped: int) -> float:
    """Return the bf16 number at or below which `dropped` of the 2¹⁶ bit patterns lie (NaN lies nowhere)."""
    pattern = 0xFF80 - dropped + 1 if dropped <= _NEGATIVE else dropped - _NEGATIVE - 1
    return torch.tensor(pattern, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).item()


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each element of x, bfloat16, with probability p (to 2⁻¹⁶, below `MOST_DROPOUT`) and scale the others."""
    dropped = round(p * _LEVELS)
    return _Dropout.apply(x, dropped, _LEVELS / (_LEVELS - dropped))


class _Attention(torch.autograd.Function):
    """Attention whose weights, the largest tensors of a layer, are worked on in place.

    No mask of what was dropped is kept: the weights behind the dropout tell the backward pass. Their softmax goes
    through fp32: torch's own forward in bf16 takes more than twice the time, its backward does not.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        dropped: int,
        scale: float,
    ) -> torch.Tensor:
        query = torch.mul(query, scale, out=query.new_empty(query.shape))
        key, value = key.contiguous(), value.contiguous()
        scores = query @ key.transpose(2, 3)
        if mask is not None:
            scores += mask
        wide = scores.float()
        weights = torch.softmax(wide, -1, out=wide).to(scores.dtype)
        kept = _drop(weights, _noise(weights), _threshold(dropped), 1) if dropped else weights
        ctx.save_for_backward(query, key, value, weights, kept)
        ctx.dropped, ctx.scale, ctx.kept_scale = dropped, scale, _LEVELS / (_LEVELS - dropped)
        ctx.mask_like = None if mask is None else (mask.shape, mask.dtype)
        return (kept @ value).mul_(ctx.kept_scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, kept = ctx.saved_tensors
        for_query, for_key, for_value, for_mask = ctx.needs_input_grad[:4]
        grad = grad.contiguous() * ctx.kept_scale
        for_weights = grad @ value.transpose(2, 3)
        if ctx.dropped:  # a weight is above 0 where it was kept; one that underflowed to 0 passes no gradient on
            for_weights = _drop(for_weights, kept, 0.0, 1)
        for_scores = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
        return (
            (for_scores @ key).mul_(ctx.scale) if for_query else None,
            for_scores.transpose(2, 3) @ query if for_key else None,
            kept.transpose(2, 3) @ grad if for_value else None,
            for_scores.sum_to_size(ctx.mask_like[0]).to(ctx.mask_like[1]) if for_mask else None,
            None,
            None,
        )


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float,
    scale: float,
) -> torch.Tensor:
    """softmax(q·kᵀ·scale + mask)·v for training, all bfloat16 and (batch, heads, sequence, head_dim).

    A query of one token, repeated without a copy (`FirstTokenOnly`), is computed once.
    """
    rows = query.shape[2]
    if query.stride(2) == 0:
        query, mask = query[:, :, :1], mask if mask is None else mask[:, :, :1]
    attended = _Attention.apply(query, key, value, mask, round(dropout_p * _LEVELS), scale)
    return attended.expand(-1, -1, rows, -1)


def embedding(input: torch.Tensor, weight: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Look rows up like `torch.nn.functional.embedding`; under autocast they come out in bf16, trained or frozen."""
    rows = F.embedding(input, weight, *args, **kwargs)
    return rows.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else rows

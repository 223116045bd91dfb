"""Cheaper dropout for training on a CPU, where drawing its random numbers costs a fifth of a step.

One 64-bit draw serves four elements with 16 bits each, so the rate p is rounded to a multiple of 2⁻¹⁶
(0.1 becomes 0.100006) and the scale 1 / (1 − p) uses the rounded rate: the output stays unbiased.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from peftbench.backbones.sites import Sites

_LEVELS = 2**16


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        count = x.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        dropped = round(p * _LEVELS)
        ctx.scale = _LEVELS / (_LEVELS - dropped)
        keep = words.view(torch.int16)[:count].view(x.shape) >= dropped - _LEVELS // 2
        ctx.save_for_backward(keep)
        return torch.ops.aten.native_dropout_backward(x, keep, ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.ops.aten.native_dropout_backward(grad, keep, ctx.scale), None


def dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Zero each element of x with probability p (to 2⁻¹⁶) and scale the others by 1 / (1 − p)."""
    return _Dropout.apply(x, p) if training and round(p * _LEVELS) else x


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(q·kᵀ·scaling + mask)·v, all (batch, heads, sequence, head_dim), as transformers' registry asks."""
    scores = (query * (scaling or query.shape[-1] ** -0.5)) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = _drop(F.softmax(scores, dim=-1), dropout, module.training)
    return (weights @ value).transpose(1, 2), None


_drop = dropout
_NAME = "peftbench_cpu"
AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


@contextmanager
def cheap_dropout(sites: Sites) -> Iterator[None]:
    """Train with this module's dropout inside the block; needs a backbone on the CPU without a method on it."""
    config: Any = sites.base.config
    implementation = config._attn_implementation
    modules = [m for m in sites.model.modules() if type(m) is nn.Dropout]
    for module in modules:
        module.forward = partial(_forward, module)  # type: ignore[method-assign]
    if sites.attention_interface:
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = implementation
        for module in modules:
            del module.forward


def _forward(module: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
    return dropout(x, module.p, module.training)

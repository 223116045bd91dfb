"""What makes training on an x86 CPU cheaper and leaves its mathematics as it is.

Matrix products go through oneDNN instead of MKL, which runs at half speed or less on processors that are not
Intel's; on Intel's it is the faster of the two, and so is torch's attention where nothing is dropped. Dropout draws
its random numbers cheaply: one 64-bit draw serves four elements with 16 bits each, so the rate p is rounded to a
multiple of 2⁻¹⁶ (0.1 becomes 0.100006) and the scale 1 / (1 − p) uses the rounded rate: the output stays unbiased.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from peftbench.backbones.economy import bf16, frozen
from peftbench.processor import is_intel

MKL_IS_FAST = torch.backends.mkl.is_available() and is_intel()
_LEVELS = 2**16


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x·weightᵀ + bias; x (..., d_in), weight (d_out, d_in), both float32, transposed views welcome."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        # oneDNN's result is a view for more than two dimensions, and a view takes no in-place arithmetic
        product = _product(x, weight, bias)
        return torch.ops.aten._unsafe_view(product, product.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        flat = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.t()) if for_x else None,
            _product(flat.t(), x.reshape(-1, x.shape[-1]).t()) if for_weight else None,
            flat.sum(0) if for_bias else None,
        )


def linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return input·weightᵀ + bias like `torch.nn.functional.linear`, through oneDNN where that is faster."""
    cast = frozen.cast_of(weight)
    if cast is not None and input.numel():
        return frozen.linear(input, cast, bias)
    if MKL_IS_FAST or input.dtype != torch.float32 or not input.numel() or torch.is_autocast_enabled("cpu"):
        # rows that lie apart would go through a batched product, with a copy of the weight for each
        return F.linear(input.contiguous(), weight, bias)
    # oneDNN reads past the end of tensors that do not fit each other, where torch raises an error
    if weight.dim() != 2 or input.shape[-1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return F.linear(input, weight, bias)
    return _Linear.apply(input, weight, bias)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        count = x.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        ctx.dropped = round(p * _LEVELS)
        levels = words.view(torch.int16)[:count].view(x.shape)
        ctx.save_for_backward(levels)
        return _drop(x, levels, ctx.dropped)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (levels,) = ctx.saved_tensors
        return _drop(grad, levels, ctx.dropped), None


def _drop(x: torch.Tensor, levels: torch.Tensor, dropped: int) -> torch.Tensor:
    """Return x scaled where the levels, 16-bit integers, are kept and 0 elsewhere.

    The mask is made in x's own type: comparing into booleans and widening them takes several times as long.
    """
    keep = torch.ge(levels, dropped - _LEVELS // 2, out=torch.empty(x.shape, dtype=x.dtype))
    return keep.mul_(_LEVELS / (_LEVELS - dropped)).mul_(x)


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Zero each element of the input with probability p (to 2⁻¹⁶) and scale the others by 1 / (1 − p)."""
    if not training or not 0 < round(p * _LEVELS) < _LEVELS:
        return F.dropout(input, p, training, inplace)
    if input.dtype == torch.bfloat16 and p < bf16.MOST_DROPOUT:
        return bf16.dropout(input, p)
    return _Dropout.apply(input, p)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """softmax(q·kᵀ·scale + mask)·v like `scaled_dot_product_attention`, for training: with the dropout above.

    query, key, value: (batch, heads, sequence, head_dim); the mask is boolean (True = seen) or added.
    """
    if is_causal or kwargs.get("enable_gqa") or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **kwargs)
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (each.to(torch.get_autocast_dtype("cpu")) for each in (query, key, value))
    scale = scale or query.shape[-1] ** -0.5
    if attn_mask is not None:
        lowest = torch.finfo(query.dtype).min
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, lowest)
        else:  # float32's own lowest is -inf in bf16, and a row of nothing else would be NaN
            attn_mask = attn_mask.clamp(min=lowest)
    if query.dtype == torch.bfloat16 and dropout_p < bf16.MOST_DROPOUT:
        return bf16.attention(query, key, value, attn_mask, dropout_p, scale)
    if MKL_IS_FAST and not dropout_p:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, scale=scale)
    # a product of views whose rows lie apart copies them, forward and backward, at several times the product's cost
    scores = (query * scale).contiguous() @ key.contiguous().transpose(2, 3)
    weights = F.softmax(scores if attn_mask is None else scores + attn_mask, dim=-1)
    return dropout(weights, dropout_p, dropout_p > 0) @ value.contiguous()


_REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: dropout,
    F.embedding: bf16.embedding,
    F.scaled_dot_product_attention: attention,
}
if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _REPLACED[F.linear] = linear


class CheapOnCpu(TorchFunctionMode):
    """Inside `with CheapOnCpu():` models call this module's functions in place of torch's own."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))

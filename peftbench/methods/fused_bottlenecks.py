"""Attention over the bottlenecks of several adapters at one place: the mathematics of AdapterFusion and its tensors.

With z_n = W_up·act(W_down·x + b_1) + b_2 of the n-th adapter and s = softmax over n of (Q·x + b_q)·(K·z_n + b_k), it
gives Σ_n s_n·V·z_n. No product is taken once an adapter: (Q·x)·(K·z_n) is (Kᵀ·Q·x)·z_n, and V acts on the sum. Where
nothing trains, Q, K and V are multiplied into the adapters' own matrices, which are much smaller.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.methods.bottleneck import Activation, Bottleneck
from peftbench.methods.unchanged import WhileUnchanged

INIT_STD = 0.02
OFF_DIAGONAL = 1e-6
Attention = Callable[[torch.Tensor], torch.Tensor]
# of N adapters, W_down (N, m, d), b_1 (N, m), W_up transposed (N, m, d) and b_2 (N, d)
Stacks = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
# of all that reads x, weight (2Nm + N, d) and bias: W_down, what each inner feature adds to its adapter's score, and
# what the score has besides; then V·W_up transposed (N·m, d) and V·b_2 (N, d)
Folded = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def fuse(
    x: torch.Tensor,
    adapters: Stacks,
    query: nn.Linear,
    key: nn.Linear,
    value: nn.Linear,
    activation: Activation,
    attention: Attention,
) -> torch.Tensor:
    """Return Σ_n s_n·V·z_n, (..., d).

    Args:
        x: (..., d). adapters: their tensors.
        query, key, value: the maps. activation: of the adapters.
        attention: from scores, (..., N), to weights.
    """
    down_weight, down_bias, up_weight, up_bias = adapters
    inner = activation(F.linear(x, down_weight.flatten(0, 1), down_bias.flatten()))
    asked = query(x)
    by_key = asked @ key.weight
    by_feature = F.linear(by_key, up_weight.flatten(0, 1))
    besides = F.linear(by_key, up_bias) + F.linear(asked, key.bias[None])
    weights = attention((inner * by_feature).unflatten(-1, down_bias.shape).sum(-1) + besides)
    mixed: torch.Tensor = value(
        _weighted(inner, weights, down_bias.shape) @ up_weight.flatten(0, 1) + weights @ up_bias
    )
    return mixed


def fold(adapters: Stacks, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> Folded:
    """Multiply the maps into the adapters' matrices, in the tensors' own type."""
    down_weight, down_bias, up_weight, up_bias = adapters
    with torch.autocast(down_weight.device.type, enabled=False):
        by_feature, besides = F.linear(up_weight.flatten(0, 1), key.weight), F.linear(up_bias, key.weight, key.bias)
        reading = torch.cat([down_weight.flatten(0, 1), by_feature @ query.weight, besides @ query.weight])
        bias = torch.cat([down_bias.flatten(), by_feature @ query.bias, besides @ query.bias])
        return reading, bias, F.linear(up_weight.flatten(0, 1), value.weight), F.linear(up_bias, value.weight)


def fuse_folded(
    x: torch.Tensor, folded: Folded, shape: torch.Size, activation: Activation, attention: Attention
) -> torch.Tensor:
    """Return what `fuse` does, from what `fold` has made of the same tensors; `shape` is (N, m)."""
    weight, bias, up_weight, up_bias = folded
    size = shape.numel()
    inner, by_feature, besides = F.linear(x, weight, bias).split([size, size, shape[0]], dim=-1)
    inner = activation(inner)
    weights = attention((inner * by_feature).unflatten(-1, shape).sum(-1) + besides)
    return _weighted(inner, weights, shape) @ up_weight + weights @ up_bias


def _weighted(inner: torch.Tensor, weights: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return (inner.unflatten(-1, shape) * weights[..., None]).flatten(-2)


class FusedBottlenecks(nn.Module):
    """What stands in the place of one `Bottleneck`: those of N adapters in frozen stacks, and the maps that train.

    Q and K start from N(0, 0.02) with biases of 0, V near the identity.

    Attributes:
        backbone: the encoder, whose mode it follows; a list keeps nn.Module from taking it in.
        kept: numbers of the adapters that are not pruned; None: all.
    """

    def __init__(self, first: Bottleneck, adapters: int, dropout: float) -> None:
        super().__init__()
        size, hidden = first.down_weight.shape
        self.activation = first.activation
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.dropout, self.softmax = dropout, nn.Softmax(dim=-1)
        self.backbone: list[nn.Module] = []
        self.kept: list[int] | None = None
        with torch.no_grad():
            for linear in (self.query, self.key):
                nn.init.normal_(linear.weight, std=INIT_STD)
                nn.init.zeros_(linear.bias)
            nn.init.constant_(self.value.weight, OFF_DIAGONAL).fill_diagonal_(1.0)
        self.register_buffer("down_weight", INIT_STD * torch.randn(adapters, size, hidden))
        self.register_buffer("down_bias", torch.zeros(adapters, size))
        self.register_buffer("up_weight", INIT_STD * torch.randn(adapters, size, hidden))
        self.register_buffer("up_bias", torch.zeros(adapters, hidden))
        self._folded = WhileUnchanged[Folded]()

    @property
    def stacks(self) -> Stacks:
        """The adapters' tensors as `fuse` takes them, without those that are pruned."""
        stacks: Any = (self.down_weight, self.down_bias, self.up_weight, self.up_bias)
        return stacks if self.kept is None else tuple(stack[self.kept] for stack in stacks)

    @property
    def training_backbone(self) -> bool:
        """Whether the backbone is in training mode; its own says nothing."""
        return any(backbone.training for backbone in self.backbone)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the fused update of x, (..., d), the same shape."""
        if torch.is_grad_enabled() or self.training_backbone:
            return fuse(x, self.stacks, self.query, self.key, self.value, self.activation, self._attention)
        folded = self._fold()
        shape = torch.Size((len(folded[3]), len(folded[2]) // len(folded[3])))
        return fuse_folded(x, folded, shape, self.activation, self._attention)

    def _attention(self, scores: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.softmax(F.dropout(scores, self.dropout, self.training_backbone))
        return weights

    def _fold(self) -> Folded:
        """Fold what has changed since the last time."""
        tensors = [*self.parameters(), *self.buffers()]
        return self._folded.get(tensors, lambda: fold(self.stacks, self.query, self.key, self.value), self.kept)

    def penalty(self) -> torch.Tensor:
        """Return ‖I - V‖²."""
        value = self.value.weight
        return (value - torch.eye(len(value), device=value.device, dtype=value.dtype)).square().sum()

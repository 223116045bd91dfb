"""Parallel adapters (He et al. 2022, Towards a unified view, §3.3 and §4): beside the feed-forward part.

s·(W_up·relu(W_down·x + b_1) + b_2) is added to the feed-forward part's output behind its dropout, x what the part
reads (behind a norm that stands before it, where AdapterHub reads in front of it); no skip of its own. After
jxhe/unify-parameter-efficient-tuning (petl_factory.py:422-456): W_down Kaiming-uniform with a = √5, W_up and the
biases zero, so that it starts as nothing. s = 4 is the paper's choice for its larger tasks (§4.5); its GLUE script
takes 2. Left out is that code's dropout behind the activation (0.1 on GLUE): a bottleneck here has none.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Span
from peftbench.backbones.sites import Sites
from peftbench.methods.base import check_scale
from peftbench.methods.bottleneck import (
    ACTIVATIONS,
    Bottleneck,
    BottleneckConfig,
    BottleneckMethod,
    count_bottleneck,
    layer_numbers,
)


@dataclass(frozen=True)
class ParallelConfig(BottleneckConfig):
    """Settings of the parallel adapter, beside those of `BottleneckConfig` (m = 64).

    Attributes:
        scale: s, what the adapter's output is multiplied by.
        learn_scale: train s, one number a layer that starts at `scale` (in the official code at 1).
    """

    default_bottleneck: ClassVar[int] = 64
    scale: float = 4.0
    learn_scale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.scale, "adapter")


def parallel_adapter(
    x: torch.Tensor, output: torch.Tensor, update: Callable[[torch.Tensor], torch.Tensor], scale: float | torch.Tensor
) -> torch.Tensor:
    """Return output + scale·update(x).

    Args:
        x: (..., d), what the feed-forward part reads. output: what it gives, the same shape.
        update: the bottleneck. scale: a number, or a tensor without dimensions, stacked (groups,).
    """
    if isinstance(scale, torch.Tensor):
        return output + scale[..., None, None] * update(x)
    return torch.add(output, update(x), alpha=scale)  # one pass over the output


class Parallel(BottleneckMethod, name="parallel"):
    """One `Bottleneck` a layer, and its scale where that is learned."""

    config_class = ParallelConfig
    config: ParallelConfig

    def __init__(self, config: ParallelConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        layers, size = layer_numbers(config, sites), config.size(sites.hidden)
        self.bottlenecks = nn.ModuleList(_fresh(sites.hidden, size) for _ in layers)
        scales = [nn.Parameter(torch.tensor(float(config.scale))) for _ in layers] if config.learn_scale else []
        self.scales = nn.ParameterList(scales)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Add each adapter's output to that of the feed-forward part whose input it reads."""
        numbers, spans = layer_numbers(self.config, sites), self.spans(sites)
        scales = self.scales if self.config.learn_scale else [self.config.scale] * len(numbers)
        for number, block, scale in zip(numbers, self.bottlenecks, scales, strict=True):
            update = self.update(block, spans[number])  # type: ignore[arg-type]
            yield from spans[number].replace(partial(parallel_adapter, update=update, scale=scale))

    def spans(self, sites: Sites) -> list[Span]:
        """Return of each layer what the adapter reads, and the output that it is added to."""
        return sites.spans("ffn")

    def update(self, block: Bottleneck, span: Span) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what a layer's bottleneck makes of what it reads."""
        return block

    @staticmethod
    def count(config: ParallelConfig, sites: Sites) -> int:
        """2md + m + d a layer, and 1 where the scale is learned."""
        a_layer = count_bottleneck(sites.hidden, config.size(sites.hidden)) + config.learn_scale
        return len(layer_numbers(config, sites)) * a_layer


def _fresh(hidden: int, size: int) -> Bottleneck:
    block = Bottleneck(hidden, size, ACTIVATIONS["relu"])
    nn.init.kaiming_uniform_(block.down_weight, a=math.sqrt(5))
    nn.init.zeros_(block.up_weight)
    return block

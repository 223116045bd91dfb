"""Pfeiffer adapters (Pfeiffer et al. 2021, AdapterFusion, App. A.2): one a layer, behind the feed-forward part.

With h the feed-forward part's output behind its dropout, r what is added to it and LN the pretrained norm, which
stays frozen: LN(h + r + f(LN(h + r))), f(u) = W_up·relu(W_down·u) with biases. The norm acts twice, so that the method
changes the model's answer from the start. Order and initialisation, N(0, 0.02), follow adapter-hub/adapters
(modeling.py:177-274); the paper gives no initialisation. Where norms stand before the sub-layers none follows the
addition: there, as in that library, the result is h + r + f(h + r).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Span
from peftbench.backbones.sites import Sites
from peftbench.methods.bottleneck import (
    ACTIVATIONS,
    Bottleneck,
    BottleneckConfig,
    BottleneckMethod,
    adapter_sites,
    count_bottleneck,
    layer_numbers,
)

INIT_STD = 0.02


@dataclass(frozen=True)
class PfeifferConfig(BottleneckConfig):
    """Settings of the Pfeiffer adapter: those of `BottleneckConfig` (m = 48, reduction factor 16 of BERT-base)."""

    default_bottleneck: ClassVar[int] = 48


def pfeiffer_adapter(
    total: torch.Tensor,
    normed: torch.Tensor,
    update: Callable[[torch.Tensor], torch.Tensor],
    norm: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return LN(h + r + f(LN(h + r))).

    Args:
        total: h + r, (..., d). normed: LN(h + r), the same shape.
        update: f. norm: LN.
    """
    return norm(total + update(normed))


def pre_norm_adapter(
    residual: torch.Tensor, output: torch.Tensor, update: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return h + f(h + r), to which the layer adds r.

    Args:
        residual: r, (..., d). output: h, the same shape.
        update: f.
    """
    return output + update(output + residual)


class Pfeiffer(BottleneckMethod, name="pfeiffer"):
    """One `Bottleneck` a layer."""

    config_class = PfeifferConfig
    config: PfeifferConfig

    def __init__(self, config: PfeifferConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        size = config.size(sites.hidden)
        self.bottlenecks = nn.ModuleList(_fresh(sites.hidden, size) for _ in layer_numbers(config, sites))

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Put each adapter between the norm and its second turn."""
        norms, outputs = (adapter_sites(self.config, sites, f"ffn.{name}") for name in ("norm", "residual"))
        for norm, output, block in zip(norms, outputs, self.bottlenecks, strict=True):
            if sites.layout.pre_norm:  # what enters the norm is r
                yield from Span(replace(norm, is_input=True), output).replace(partial(pre_norm_adapter, update=block))
            else:  # `forward`, not a call: past the hooks, this one among them
                yield norm.replace_output(partial(pfeiffer_adapter, update=block, norm=norm.module.forward))

    @staticmethod
    def count(config: PfeifferConfig, sites: Sites) -> int:
        """2md + m + d a layer."""
        return len(layer_numbers(config, sites)) * count_bottleneck(sites.hidden, config.size(sites.hidden))


def _fresh(hidden: int, size: int) -> Bottleneck:
    block = Bottleneck(hidden, size, ACTIVATIONS["relu"])
    for weight in (block.down_weight, block.up_weight):
        nn.init.normal_(weight, std=INIT_STD)
    return block

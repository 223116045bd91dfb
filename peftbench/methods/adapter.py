"""Bottleneck adapters (Houlsby et al. 2019).

After google-research/adapter-bert: x + W_up·act(W_down·x + b_1) + b_2, behind a sub-layer's dropout and before
its residual addition and layer norm (§2.1; modeling.py:939-965). Where paper and code differ the code is
followed: truncated normal with σ = 1e-3 (the paper's main runs used 1e-2, §3.6), all layer norms trained,
the pooler frozen.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.sites import NORM_SITES, Sites
from peftbench.methods.base import Method, check_at_least, check_choice

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
# `every` is our reading of "every sub-layer": in BERT that equals `both`, so it adds one behind each layer norm
POSITIONS: dict[str, tuple[str, ...]] = {
    "attention": ("attention.residual",),
    "ffn": ("ffn.residual",),
    "both": ("attention.residual", "ffn.residual"),
    "every": ("attention.residual", "attention.norm", "ffn.residual", "ffn.norm"),
    "output": ("final",),
}


@dataclass(frozen=True)
class AdapterConfig:
    """Settings of the bottleneck adapter.

    Attributes:
        bottleneck: inner dimension m.
        position: attention | ffn | both (Houlsby) | every (four a layer) | output (one, before the head).
        activation: gelu (as the official code) | relu | swish | tanh.
        train_layer_norm: also train every layer norm of the backbone, the embeddings' included.
        init_std: standard deviation of both weight matrices, truncated at two deviations; biases start at 0.
    """

    bottleneck: int = 64
    position: str = "both"
    activation: str = "gelu"
    train_layer_norm: bool = True
    init_std: float = 1e-3

    def __post_init__(self) -> None:
        check_at_least("bottleneck", self.bottleneck, 1)
        check_choice("position", self.position, POSITIONS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_at_least("init_std", self.init_std, 0)


def bottleneck_adapter(
    x: torch.Tensor,
    down_weight: torch.Tensor,
    down_bias: torch.Tensor,
    up_weight: torch.Tensor,
    up_bias: torch.Tensor,
    activation: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return x + W_up·act(W_down·x + b_down) + b_up.

    Args:
        x: (..., d).
        down_weight: (m, d). down_bias: (m,). up_weight: (d, m). up_bias: (d,).
        activation: elementwise function.
    """
    return x + F.linear(activation(F.linear(x, down_weight, down_bias)), up_weight, up_bias)


class Bottleneck(nn.Module):
    """The four tensors of one bottleneck adapter."""

    def __init__(self, hidden: int, bottleneck: int, init_std: float) -> None:
        super().__init__()
        self.down_weight = nn.Parameter(torch.empty(bottleneck, hidden))
        self.down_bias = nn.Parameter(torch.zeros(bottleneck))
        self.up_weight = nn.Parameter(torch.empty(hidden, bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(hidden))
        for weight in (self.down_weight, self.up_weight):
            if init_std > 0:
                nn.init.trunc_normal_(weight, std=init_std, a=-2 * init_std, b=2 * init_std)
            else:
                nn.init.zeros_(weight)


class Adapter(Method, name="adapter"):
    """One `Bottleneck` a placement, in the order of the layers."""

    config_class = AdapterConfig
    config: AdapterConfig

    def __init__(self, config: AdapterConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.bottlenecks = nn.ModuleDict(
            {
                site.replace(".", "_"): nn.ModuleList(
                    Bottleneck(sites.hidden, config.bottleneck, config.init_std) for _ in sites.at(site)
                )
                for site in POSITIONS[config.position]
            }
        )
        if config.train_layer_norm:
            self.train_backbone(sites, layer_norm_names(sites))

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Pass each placement's tensor through its adapter."""
        activation = ACTIVATIONS[self.config.activation]
        for site in POSITIONS[self.config.position]:
            blocks: Any = self.bottlenecks[site.replace(".", "_")]
            for place, block in zip(sites.at(site), blocks, strict=True):

                def adapt(x: torch.Tensor, block: Bottleneck = block) -> torch.Tensor:
                    return bottleneck_adapter(
                        x, block.down_weight, block.down_bias, block.up_weight, block.up_bias, activation
                    )

                yield place.replace(adapt)

    @staticmethod
    def count(config: AdapterConfig, sites: Sites) -> int:
        """2md + m + d an adapter (§2.1); with the norms 2d each (d without a bias), the embeddings' own too."""
        d, m = sites.hidden, config.bottleneck
        adapters = sum(len(sites.at(site)) for site in POSITIONS[config.position])
        norms = 0
        if config.train_layer_norm:
            names = set(layer_norm_names(sites))
            outside = sum(p.numel() for name, p in sites.parameters_outside_sites() if name in names)
            inside = (place.module for site in NORM_SITES for place in sites.at(site))
            norms = outside + sum(d * len(list(norm.parameters())) for norm in inside)
        return adapters * (2 * m * d + m + d) + norms


def layer_norm_names(sites: Sites) -> list[str]:
    """Names of the backbone's layer-norm parameters, weight and bias of each."""
    return [
        f"{path}.{leaf}"
        for path, module in sites.base.named_modules()
        if isinstance(module, nn.LayerNorm)
        for leaf, _ in module.named_parameters()
    ]

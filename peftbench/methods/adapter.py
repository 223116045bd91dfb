"""Bottleneck adapters (Houlsby et al. 2019).

After google-research/adapter-bert: x + W_up·act(W_down·x + b_1) + b_2, behind a sub-layer's dropout and before
its residual addition and layer norm (§2.1; modeling.py:939-965). Where paper and code differ the code is
followed: truncated normal with σ = 1e-3 (the paper's main runs used 1e-2, §3.6), all layer norms trained,
the pooler frozen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import check_at_least, check_choice
from peftbench.methods.bottleneck import (
    ACTIVATIONS,
    Bottleneck,
    BottleneckConfig,
    BottleneckMethod,
    adapter_sites,
    count_bottleneck,
    layer_numbers,
)
from peftbench.methods.layer_norms import count_layer_norms, layer_norm_names

# `every` is our reading of "every sub-layer": in BERT that equals `both`, so it adds one behind each layer norm
POSITIONS: dict[str, tuple[str, ...]] = {
    "attention": ("attention.residual",),
    "ffn": ("ffn.residual",),
    "both": ("attention.residual", "ffn.residual"),
    "every": ("attention.residual", "attention.norm", "ffn.residual", "ffn.norm"),
    "output": ("final",),
}


@dataclass(frozen=True)
class AdapterConfig(BottleneckConfig):
    """Settings of the bottleneck adapter, beside those of `BottleneckConfig` (m = 64).

    Attributes:
        position: attention | ffn | both (Houlsby) | every (four a layer) | output (one, before the head).
        activation: gelu (as the official code) | relu | swish | tanh | gelu_new (gelu by tanh).
        train_layer_norm: also train the backbone's layer norms: with adapters in all layers every one, the
            embeddings' included, else those of the layers that carry adapters.
        init_std: standard deviation of both weight matrices, truncated at two deviations; biases start at 0.
    """

    default_bottleneck: ClassVar[int] = 64
    position: str = "both"
    activation: str = "gelu"
    train_layer_norm: bool = True
    init_std: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("position", self.position, POSITIONS)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_at_least("init_std", self.init_std, 0)
        if self.position == "output" and self.layers != "all":
            raise UserError("method.position=output is in no layer: leave method.layers=all")
        if self.position == "output" and self.drop != "none":
            raise UserError(f"method.drop={self.drop}: method.position=output is in no layer that could go bare")


class Adapter(BottleneckMethod, name="adapter"):
    """One `Bottleneck` a placement, in the order of the layers."""

    config_class = AdapterConfig
    config: AdapterConfig

    def __init__(self, config: AdapterConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.bottlenecks = nn.ModuleDict(
            {
                site.replace(".", "_"): nn.ModuleList(
                    _fresh(config, _width(sites, site)) for _ in adapter_sites(config, sites, site)
                )
                for site in POSITIONS[config.position]
            }
        )
        if config.train_layer_norm:
            self.train_backbone(sites, layer_norm_names(sites, layer_numbers(config, sites)))

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Pass each placement's tensor through its adapter."""
        for site in POSITIONS[self.config.position]:
            blocks = self.bottlenecks[site.replace(".", "_")]
            for place, block in zip(adapter_sites(self.config, sites, site), blocks, strict=True):  # type: ignore[call-overload]
                yield place.replace(lambda x, block=block: x + block(x))

    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return the layers with adapters; the one before the head is in none."""
        return () if self.config.position == "output" else super().droppable_layers(sites)

    def first_layer(self, sites: Sites) -> int:
        """Return the lowest layer with an adapter or a trained norm."""
        outside = self.config.position == "output" and not self.config.train_layer_norm
        return len(sites.layers) if outside else layer_numbers(self.config, sites)[0]

    @staticmethod
    def count(config: AdapterConfig, sites: Sites) -> int:
        """2md + m + d an adapter; with the norms 2d each (d without a bias), the embeddings' own too."""
        adapters = sum(
            len(adapter_sites(config, sites, site)) * count_bottleneck(width, config.size(width))
            for site in POSITIONS[config.position]
            for width in [_width(sites, site)]
        )
        norms = count_layer_norms(sites, layer_numbers(config, sites)) if config.train_layer_norm else 0
        return adapters + norms


def _width(sites: Sites, site: str) -> int:
    """Return the width of what an adapter there reads: some heads read several tokens at once."""
    return sites.final_width if site == "final" else sites.hidden


def _fresh(config: AdapterConfig, hidden: int) -> Bottleneck:
    block = Bottleneck(hidden, config.size(hidden), ACTIVATIONS[config.activation])
    for weight in (block.down_weight, block.up_weight):
        if config.init_std > 0:
            nn.init.trunc_normal_(weight, std=config.init_std, a=-2 * config.init_std, b=2 * config.init_std)
        else:
            nn.init.zeros_(weight)
    return block

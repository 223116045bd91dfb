"""AdaptFormer (Chen et al. 2022): a small bottleneck beside the feed-forward part, reading the residual stream.

h + FFN(LN(h)) + s·(W_up·dropout(relu(W_down·h + b_1)) + b_2), h the stream before the part's norm, which
`parallel` reads behind it. After ShoufaChen/AdaptFormer (adapter.py:11-64, custom_modules.py:72-94): no norm of its
own, s = 0.1, m = 64, dropout 0.1 in the bottleneck while training, W_down Kaiming-uniform with a = √5, W_up and the
biases zero, so that it starts as nothing. Its head has a batch norm, which ours has not. Where norms stand behind the
sub-layers, the stream is what the part reads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F

from peftbench.backbones.site import Span
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.bottleneck import Bottleneck, bottleneck_update
from peftbench.methods.parallel import Parallel, ParallelConfig


@dataclass(frozen=True)
class AdaptformerConfig(ParallelConfig):
    """Settings of AdaptFormer, beside those of `BottleneckConfig` (m = 64).

    Attributes:
        scale: s, what the adapter's output is multiplied by.
        learn_scale: train s, one number a layer that starts at `scale`.
        dropout: on the bottleneck's activations, while training.
    """

    scale: float = 0.1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise UserError(f"method.dropout={self.dropout:g} must lie in 0 … 1, 1 left out")


class Adaptformer(Parallel, name="adaptformer"):
    """One `Bottleneck` a layer, and its scale where that is learned."""

    config_class = AdaptformerConfig
    config: AdaptformerConfig

    def spans(self, sites: Sites) -> list[Span]:
        """Return of each layer the stream before the feed-forward part's norm, and the part's output."""
        if not sites.layout.pre_norm:
            return sites.spans("ffn")
        norms, exits = sites.at("ffn.norm"), sites.at("ffn.residual")
        return [Span(replace(norm, entry=True), exit) for norm, exit in zip(norms, exits, strict=True)]

    def update(self, block: Bottleneck, span: Span) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the bottleneck with dropout on its activations."""

        def activation(inner: torch.Tensor) -> torch.Tensor:
            # the backbone's mode, not our own
            return F.dropout(F.relu(inner), self.config.dropout, span.exit.module.training)

        def update(x: torch.Tensor) -> torch.Tensor:
            return bottleneck_update(x, block.down_weight, block.down_bias, block.up_weight, block.up_bias, activation)

        return update

"""AdaptFormer (Chen et al. 2022): a small bottleneck beside the feed-forward part, reading the residual stream.

h + FFN(LN(h)) + s·(W_up·dropout(relu(W_down·h + b_1)) + b_2), h the stream before the part's norm, which
`parallel` reads behind it. After ShoufaChen/AdaptFormer (adapter.py:11-64, custom_modules.py:72-94): no norm of its
own, s = 0.1, m = 64, dropout 0.1 in the bottleneck while training, W_down Kaiming-uniform with a = √5, W_up and the
biases zero, so that it starts as nothing. Its head has a batch norm, which ours has not. Where norms stand behind the
sub-layers, the stream is what the part reads. With `prompts` each layer also gets as many trained tokens in front of
all others, left out again behind it (vit_image.py:113-139), Xavier-uniform; the adapters read them too.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.image_prompts import insert_in_each_layer
from peftbench.backbones.site import Span
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import check_at_least, check_dropout
from peftbench.methods.bottleneck import Bottleneck, bottleneck_update
from peftbench.methods.parallel import Parallel, ParallelConfig


@dataclass(frozen=True)
class AdaptformerConfig(ParallelConfig):
    """Settings of AdaptFormer, beside those of `BottleneckConfig` (m = 64).

    Attributes:
        scale: s, what the adapter's output is multiplied by.
        learn_scale: train s, one number a layer that starts at `scale`.
        dropout: on the bottleneck's activations, while training.
        prompts: p, trained tokens in front of those of each layer, of images.
    """

    scale: float = 0.1
    dropout: float = 0.1
    prompts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_dropout(self.dropout)
        check_at_least("prompts", self.prompts, 0)
        if self.prompts and (self.layers != "all" or self.drop != "none"):
            raise UserError(
                f"method.prompts={self.prompts} are in all layers at all times: leave method.layers=all and"
                " method.drop=none"
            )


class Adaptformer(Parallel, name="adaptformer"):
    """One `Bottleneck` a layer, and its scale where that is learned."""

    config_class = AdaptformerConfig
    config: AdaptformerConfig

    def __init__(self, config: AdaptformerConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        if config.prompts and sites.image is None:
            raise UserError("method.prompts are for images, and the model reads texts: leave them out")
        # Xavier's for a tensor (1, p, d), as which they stand there
        bound = math.sqrt(6 / ((config.prompts + 1) * sites.hidden))
        fresh = (torch.empty(config.prompts, sites.hidden).uniform_(-bound, bound) for _ in sites.layers)
        self.prompts = nn.ParameterList(fresh if config.prompts else [])

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Put the prompts in, and add the adapters as `Parallel` does."""
        yield from super().hook(sites)
        if self.config.prompts:
            yield from insert_in_each_layer(sites, lambda layer, images: self.prompts[layer], self.config.prompts)

    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return the layers with adapters; none where they have prompts, which no layer goes without."""
        return [] if self.config.prompts else super().droppable_layers(sites)

    def first_layer(self, sites: Sites) -> int:
        """Return the lowest layer with an adapter."""
        return 0 if self.config.prompts else super().first_layer(sites)

    @property
    def keeps_first_token(self) -> bool:
        """Whether no prompt stands in front of it."""
        return not self.config.prompts

    @staticmethod
    def count(config: AdaptformerConfig, sites: Sites) -> int:  # type: ignore[override]
        """What `Parallel` has, and pd a layer."""
        return Parallel.count(config, sites) + config.prompts * sites.hidden * len(sites.layers)

    def spans(self, sites: Sites) -> list[Span]:
        """Return of each layer the stream before the feed-forward part's norm, and the part's output."""
        if not sites.layout.pre_norm:
            return sites.spans("ffn")
        norms, outputs = sites.at("ffn.norm"), sites.at("ffn.residual")
        return [Span(replace(norm, is_input=True), output) for norm, output in zip(norms, outputs, strict=True)]

    def update(self, block: Bottleneck, span: Span) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the bottleneck with dropout on its activations."""

        def activation(inner: torch.Tensor) -> torch.Tensor:
            # the backbone's mode, not our own
            return F.dropout(F.relu(inner), self.config.dropout, span.output.module.training)

        def update(x: torch.Tensor) -> torch.Tensor:
            return bottleneck_update(x, block.down_weight, block.down_bias, block.up_weight, block.up_bias, activation)

        return update

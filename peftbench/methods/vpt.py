"""Visual prompt tuning (Jia et al. 2022): trained tokens among an image's patches.

After KMnP/vpt (vit_prompt/vit.py:44-165): the prompts stand between the class token and the patches, without positions.
shallow puts them in before the first layer; deep also puts new ones in the place of what became of them before each
later layer. They start from U(-a, a), a = √(6 / (3·P² + d)), P the patch's side; with a projection, one linear map for
the prompts of all layers, d is their own dimension and the map Kaiming-normal by its outputs. Dropout acts on what the
map gives, while training. The head never reads them. There the backbone stays in evaluation mode while training; here
its dropout is the model's own, mostly 0. Where a model has more special tokens (registers, DeiT's distillation token)
the prompts stand behind them all.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.image_prompts import insert_before_patches, replace_prompts
from peftbench.backbones.sites import Sites
from peftbench.methods.base import Method, check_at_least, check_dropout

DEEP_DROPOUT = 0.1


@dataclass(frozen=True)
class VptConfig:
    """Settings of visual prompt tuning.

    Attributes:
        length: p, number of prompts, of each layer where they are deep.
        deep: new prompts before every layer, not before the first alone.
        projection: the prompts' own dimension q, from which a linear map takes them to the model's; None for no map.
        dropout: on the prompts, while training; None is 0.1 where they are deep, else 0.
    """

    length: int = 10
    deep: bool = True
    projection: int | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        check_at_least("length", self.length, 1)
        if self.projection is not None:
            check_at_least("projection", self.projection, 1)
        if self.dropout is None:
            object.__setattr__(self, "dropout", DEEP_DROPOUT if self.deep else 0.0)  # a record says what it was
        else:
            check_dropout(self.dropout)

    def layers(self, sites: Sites) -> int:
        """Return how many layers have prompts of their own."""
        return len(sites.layers) if self.deep else 1


class Vpt(Method, name="vpt"):
    """The prompts of each layer that has its own, (length, d or q), and the projection."""

    config_class = VptConfig
    modalities = ("images",)
    config: VptConfig

    def __init__(self, config: VptConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        assert sites.image is not None
        self._special = sites.image.special
        width = config.projection or sites.hidden
        bound = math.sqrt(6 / (3 * math.prod(sites.image.patch) + width))
        self.prompts = nn.ParameterList(
            nn.Parameter(torch.empty(config.length, width).uniform_(-bound, bound)) for _ in range(config.layers(sites))
        )
        self.projection = nn.Linear(width, sites.hidden) if config.projection else None
        if self.projection is not None:
            nn.init.kaiming_normal_(self.projection.weight, a=0, mode="fan_out")

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Put the prompts in, and those of each later layer in their place."""

        def prompts(layer: int, images: int) -> torch.Tensor:
            given = self.prompts[layer]
            if self.projection is not None:
                given = self.projection(given)
            assert self.config.dropout is not None
            # each image draws its own; the backbone's mode, not our own
            return F.dropout(given.expand(images, -1, -1), self.config.dropout, sites.base.training)

        yield from insert_before_patches(sites, prompts, self.config.length)
        if self.config.deep:
            yield from replace_prompts(sites, prompts, self.config.length)

    @property
    def extra_positions(self) -> int:
        """Each image has `length` tokens more."""
        return self.config.length

    @property
    def inserted_tokens(self) -> int:
        """The prompts."""
        return self.config.length

    @property
    def keeps_first_token(self) -> bool:
        """Where the model has a special token, which stays in front."""
        return self._special > 0

    @staticmethod
    def count(config: VptConfig, sites: Sites) -> int:
        """length·d for each layer with prompts; with a projection length·q for each, and (q + 1)·d."""
        width = config.projection or sites.hidden
        projection = (width + 1) * sites.hidden if config.projection else 0
        return config.layers(sites) * config.length * width + projection

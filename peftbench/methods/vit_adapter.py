"""ViT-Adapter (Chen et al. 2023): a pyramid of four maps grown beside a plain ViT, each taking from the other.

A spatial prior gives tokens on three grids. Before every block of layers an injector adds to the ViT's patches what
they take from these tokens, behind it an extractor gives the tokens what they take from the patches; the pyramid is the
tokens, the prior's finest map and the ViT's states together (§3.1). Sizes, starts and the two forms follow the
official code: detection adds the last state to every map, segmentation the state behind interaction i to map i.

As published the whole ViT trains (without its class token, which the official code keeps for BEiT alone). A frozen ViT
is not the authors': it keeps its special tokens, so that its patches start bit for bit as the bare backbone's. Nor is a
classifier, which reads the means of the four maps.

The pyramid follows the grid of the patches, whatever their size: its maps have 4, 2, 1 and ½ cells a patch, and the
prior sees the image at 16 pixels a patch. For patches of 14 pixels the authors resample the ViT's first map to 16
instead, which a frozen ViT was not trained with.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.feature_maps import as_map
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.image_tokens import ImageTokens
from peftbench.backbones.load import Backbone
from peftbench.backbones.pyramid_classifier import PyramidClassifier, add_pyramid_classifier
from peftbench.backbones.site import Site, SiteHandle
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method, check_at_least, check_choice
from peftbench.methods.interaction import (
    LEVELS,
    Grids,
    Interaction,
    Sizes,
    as_maps,
    blocks,
    count_extractor,
    count_injector,
)
from peftbench.methods.pyramid import Pyramid, count_pyramid
from peftbench.methods.spatial_prior import SpatialPrior, count_spatial_prior
from peftbench.methods.vit_adapter_start import draw_start

_PRIOR_PATCH = 16  # pixels of a patch as the prior sees the image
_EXTRA_EXTRACTORS = 2


@dataclass(frozen=True)
class VitAdapterConfig:
    """Settings of ViT-Adapter; those that are None are as published for the ViT's width.

    Attributes:
        train_backbone: whether the ViT trains too, as published.
        form: detection | segmentation: which of the ViT's states are added to the maps.
        special_tokens: drop | keep class token and registers; None drops them where the ViT trains, but BEiT's.
        interactions: number of injectors and extractors, at equal distances; 4 for form=segmentation.
        heads: heads of the deformable attention; None: 6, or width / 64 for a width of 768 or more.
        ratio: width of its values relative to the ViT's; None: 1, or 0.5 for a width of 768 or more.
        points: number of sampling points per head and map.
        prior_width: channels of the spatial prior's stem.
        ffn_ratio: inner width of the extractors' feed-forward part relative to the ViT's width.
        drop_path: probability with which that part is left out for an example in training; None: 0.2, or 0.1 below a
            width of 384.
    """

    train_backbone: bool = True
    form: str = "detection"
    special_tokens: str | None = None
    interactions: int = 4
    heads: int | None = None
    ratio: float | None = None
    points: int = 4
    prior_width: int = 64
    ffn_ratio: float = 0.25
    drop_path: float | None = None

    def __post_init__(self) -> None:
        check_choice("form", self.form, ("detection", "segmentation"))
        if self.special_tokens is not None:
            check_choice("special_tokens", self.special_tokens, ("drop", "keep"))
        check_at_least("interactions", self.interactions, 1)
        for name in ("heads", "points", "prior_width"):
            if (value := getattr(self, name)) is not None:
                check_at_least(name, value, 1)
        for name in ("ratio", "ffn_ratio"):
            if (value := getattr(self, name)) is not None and not 0 < value <= 4:
                raise UserError(f"method.{name}={value:g} must be above 0 and at most 4")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise UserError(f"method.drop_path={self.drop_path:g} must be 0 or more and below 1")
        if self.form == "segmentation" and self.interactions != 4:
            raise UserError(
                f"method.form=segmentation adds a state to each of four maps: method.interactions={self.interactions}"
                " must be 4, or take form=detection"
            )

    def keeps_special_tokens(self, sites: Sites) -> bool:
        """Tell whether the ViT keeps its class token and registers; UserError where attention has biases for them."""
        biased = bool(sites.position_biases)
        if self.special_tokens == "drop" and biased:
            raise UserError(f"method.special_tokens=drop: {type(sites.base).__name__} has biases for them: keep them")
        return not self.train_backbone or biased if self.special_tokens is None else self.special_tokens == "keep"

    def sizes(self, width: int) -> Sizes:
        """Return the sizes at a ViT's width; UserError where they do not go together."""
        large = width >= 768
        heads = self.heads or (width // 64 if large else math.gcd(6, width))
        ratio = self.ratio or (0.5 if large else 1.0)
        if int(ratio * width) % heads or not int(ratio * width):
            raise UserError(
                f"method.heads={heads} must divide the values' width {int(ratio * width)} (method.ratio={ratio:g} times"
                f" the ViT's {width})"
            )
        drop_path = (0.1 if width < 384 else 0.2) if self.drop_path is None else self.drop_path
        return Sizes(width, heads, self.points, ratio, max(1, int(self.ffn_ratio * width)), drop_path)


@dataclass
class _Pass:
    """What a forward pass holds between its hooks.

    Each interaction has its own entry, so that a layer computed again in the backward pass finds what it found before.

    Attributes:
        grid: of the patches. finest: the prior's map. tokens: before each interaction. states: behind each.
    """

    grid: Grids = Grids(0, 0)
    finest: torch.Tensor | None = None
    tokens: dict[int, torch.Tensor] = field(default_factory=dict)
    states: dict[int, torch.Tensor] = field(default_factory=dict)

    def clear(self) -> None:
        """Hold nothing any more."""
        self.finest = None
        self.tokens.clear()
        self.states.clear()


class VitAdapter(Method, name="vit_adapter"):
    """The spatial prior, the interactions and what makes the pyramid of them."""

    config_class = VitAdapterConfig
    config: VitAdapterConfig
    makes_pyramid = True
    modalities = ("images",)

    def __init__(self, config: VitAdapterConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        _check(config, sites)
        width, last = sites.hidden, config.interactions - 1
        sizes = config.sizes(width)
        self.prior = SpatialPrior(sites.base.config.num_channels, config.prior_width, width)
        self.levels = nn.Parameter(torch.randn(LEVELS, width))
        self.interactions = nn.ModuleList(
            Interaction(sizes, 1 + _EXTRA_EXTRACTORS * (number == last)) for number in range(config.interactions)
        )
        self.output = Pyramid(width)
        draw_start(self)
        if config.train_backbone:
            self.train_backbone(sites, _names_reached(config, sites))
        self._keeps_special_tokens = config.keeps_special_tokens(sites)
        self._maps: list[torch.Tensor] | None = None

    @classmethod
    def put_head(
        cls, config: VitAdapterConfig, backbone: Backbone, labels: Sequence[str], texts: int
    ) -> HeadedBackbone:
        """Put a classifier on the means of the four maps."""
        _check(config, backbone.sites)
        return add_pyramid_classifier(backbone, len(labels) or 1)

    def pyramid(self) -> Sequence[torch.Tensor] | None:
        """Return the four maps, (batch, width, rows, columns), of the last pass, the finest first; None before any."""
        return self._maps

    def hook(self, sites: Sites) -> Iterator[Handle]:
        """Let the pyramid grow beside the layers."""
        if sites.rows is not None:
            raise UserError("method=vit_adapter makes a pyramid of a whole batch: it shares no pass with other methods")
        now = _Pass()

        def begin(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            self._maps = None
            now.clear()
            self.train(module.training)
            self._begin(now, sites, args[0] if args else kwargs["pixel_values"])

        def end(module: nn.Module, args: tuple, output: Any) -> None:
            self._maps = self._finish(now)
            if not torch.is_grad_enabled():
                now.clear()

        yield sites.base.register_forward_pre_hook(begin, with_kwargs=True)
        for number, (first, last) in enumerate(blocks(len(sites.layers), self.config.interactions)):
            entering = Site(sites.layers[first], is_input=True, name="layer", layer=first)
            yield entering.replace(partial(self._inject, now, sites, number))

            def leave(module: nn.Module, args: tuple, output: Any, number: int = number) -> None:
                self._extract(now, number, output[0] if isinstance(output, tuple) else output)

            leaving = Site(sites.layers[last], name="layer", layer=last)
            yield SiteHandle(leaving, leaving.module.register_forward_hook(leave))
        yield sites.base.register_forward_hook(end)

    def _begin(self, now: _Pass, sites: Sites, pixels: torch.Tensor) -> None:
        now.grid = Grids(*_image(sites).grid(*pixels.shape[-2:]))
        size = _PRIOR_PATCH * now.grid.rows, _PRIOR_PATCH * now.grid.columns
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        now.finest, *maps = self.prior(pixels.to(self.levels.dtype))
        tokens = [each.flatten(2).transpose(1, 2) + level for each, level in zip(maps, self.levels, strict=True)]
        now.tokens[0] = torch.cat(tokens, 1)

    def _inject(self, now: _Pass, sites: Sites, number: int, x: torch.Tensor) -> torch.Tensor:
        others = x.shape[1] - now.grid.rows * now.grid.columns
        if not number and others != _image(sites).special:
            raise UserError(
                "method=vit_adapter needs the patches' grid behind the special tokens: another method attached with it,"
                " or the model itself, puts tokens in or out"
            )
        interaction: Any = self.interactions[number]
        injected: torch.Tensor = interaction.injector(x[:, others:], now.tokens[number], now.grid)
        if not others or not self._keeps_special_tokens:
            return injected
        return torch.cat([x[:, :others], injected], 1)

    def _extract(self, now: _Pass, number: int, output: torch.Tensor) -> None:
        state = output[:, -now.grid.rows * now.grid.columns :]
        now.states[number] = state
        interaction: Any = self.interactions[number]
        now.tokens[number + 1] = interaction.extract(now.tokens[number], state, now.grid)

    def _finish(self, now: _Pass) -> list[torch.Tensor]:
        """Return the pyramid."""
        assert now.finest is not None
        last = self.config.interactions - 1
        chosen = range(1 + LEVELS) if self.config.form == "segmentation" else [last] * (1 + LEVELS)
        states = [as_map(now.states[number], now.grid.shape).contiguous() for number in chosen]
        return self.output(now.finest, as_maps(now.tokens[last + 1], now.grid), states)

    def remarks(self, sites: Sites) -> list[str]:
        """Say what is not the authors'."""
        found = []
        if not self.config.train_backbone:
            found.append("ViT-Adapter on a frozen ViT is ours: its authors train the ViT too")
        if any(isinstance(module, PyramidClassifier) for module in sites.head_modules):
            found.append("the classifier on ViT-Adapter's pyramid is ours: its authors classify no images")
        return found

    @property
    def keeps_first_token(self) -> bool:
        """The head reads the pyramid, which is made of every token."""
        return False

    @staticmethod
    def count(config: VitAdapterConfig, sites: Sites) -> int:
        """Prior, 3·d of the levels, interactions and output; with the ViT what of it is read."""
        _check(config, sites)
        width, sizes = sites.hidden, config.sizes(sites.hidden)
        added = (
            count_spatial_prior(sites.base.config.num_channels, config.prior_width, width)
            + config.interactions * count_injector(sizes)
            + (config.interactions + _EXTRA_EXTRACTORS) * count_extractor(sizes)
            + LEVELS * width
            + count_pyramid(width)
        )
        if not config.train_backbone:
            return added
        names = set(_names_reached(config, sites))
        return added + sum(p.numel() for name, p in sites.backbone_parameters() if name in names)


def _check(config: VitAdapterConfig, sites: Sites) -> None:
    _image(sites)
    if len(sites.layers) < config.interactions:
        raise UserError(
            f"method.interactions={config.interactions} needs as many layers, and the model has {len(sites.layers)}"
        )


def _image(sites: Sites) -> ImageTokens:
    if sites.image is None:
        raise UserError("method=vit_adapter is for images: choose a vision model, such as model=dinov2_small_focus")
    return sites.image


def _names_reached(config: VitAdapterConfig, sites: Sites) -> list[str]:
    """Return the names of the backbone's parameters that the pyramid depends on: embeddings and layers."""
    layout = sites.layout
    read = tuple(f"{path}." for path in ("embeddings", layout.embeddings, layout.layers.partition(".")[0]))
    dropped = () if config.keeps_special_tokens(sites) else layout.special_tokens or ()
    unread = {f"embeddings.{name}" for name in (*dropped, "mask_token")}
    return [name for name, _ in sites.backbone_parameters() if name.startswith(read) and name not in unread]

"""Convpass (Jie & Deng 2022, Convolutional bypasses are better vision transformer adapters): beside both sub-layers.

s·W_up·dropout(g(conv(g(W_down·x)))) is added to a sub-layer's output, x what it reads (behind its norm), g the quick
gelu u·sigmoid(1.702·u), conv 3 × 3 over the grid of the patches; to it each special token is an image of one pixel.
After JieShibo/PETL-ViT (convpass.py:6-136): inner dimension 8, dropout 0.1 while training, W_down Xavier-uniform, conv
the identity, W_up and all biases zero, so that it starts as nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.image_tokens import ImageTokens
from peftbench.backbones.site import Span
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import check_dropout, check_scale
from peftbench.methods.bottleneck import BottleneckConfig, BottleneckMethod, layer_numbers

SUB_LAYERS = ("attention", "ffn")


@dataclass(frozen=True)
class ConvpassConfig(BottleneckConfig):
    """Settings of Convpass, beside those of `BottleneckConfig` (8).

    Attributes:
        scale: s, what each bypass is multiplied by; the paper chooses it for each task.
        dropout: on what the convolution gives, while training.
    """

    default_bottleneck: ClassVar[int] = 8
    scale: float = 1.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scale(self.scale, "bypasses")
        check_dropout(self.dropout)


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """Return x·sigmoid(1.702·x)."""
    return x * torch.sigmoid(1.702 * x)


def convolve(x: torch.Tensor, convolution: nn.Conv2d, special: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return the convolution over the patches of images, and over each special token by itself.

    Args:
        x: (images, special + rows·columns and any behind them, m), or (images, special, m) where no patch is left.
        special: how many tokens stand before the patches. grid: rows and columns of the patches.
    """
    images, tokens, width = x.shape
    end = min(tokens, special + grid[0] * grid[1])

    def alone(special_tokens: torch.Tensor) -> torch.Tensor:
        # of an image of one pixel a 3 × 3 convolution reads its centre alone
        return F.linear(special_tokens, convolution.weight[:, :, 1, 1], convolution.bias)

    if tokens <= special:
        return alone(x)
    maps = x[:, special:end].transpose(1, 2).reshape(images, width, *grid)
    parts = [alone(x[:, :special]), convolution(maps).flatten(2).transpose(1, 2)]
    return torch.cat([*parts, alone(x[:, end:])] if end < tokens else parts, dim=1)


class Bypass(nn.Module):
    """The tensors of one bypass."""

    def __init__(self, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, bottleneck)
        self.convolution = nn.Conv2d(bottleneck, bottleneck, 3, padding=1)
        self.up = nn.Linear(bottleneck, hidden)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)
        with torch.no_grad():
            self.convolution.weight.zero_()
            self.convolution.weight[:, :, 1, 1] = torch.eye(bottleneck)
            for part in (self.down, self.convolution, self.up):
                part.bias.zero_()  # type: ignore[union-attr]


class Convpass(BottleneckMethod, name="convpass"):
    """Two `Bypass`es a layer."""

    config_class = ConvpassConfig
    modalities = ("images",)
    config: ConvpassConfig

    def __init__(self, config: ConvpassConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        size = config.size(sites.hidden)
        self.bypasses = nn.ModuleDict(
            {
                name: nn.ModuleList(Bypass(sites.hidden, size) for _ in layer_numbers(config, sites))
                for name in SUB_LAYERS
            }
        )
        self._grid = (0, 0)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Add each bypass to its sub-layer's output."""
        assert sites.image is not None
        yield sites.base.register_forward_pre_hook(partial(self._before_forward, sites.image), with_kwargs=True)
        for name in SUB_LAYERS:
            spans, blocks = sites.spans(name), self.bypasses[name]
            for number, block in zip(layer_numbers(self.config, sites), blocks, strict=True):  # type: ignore[call-overload]
                yield from spans[number].replace(partial(self._add, block, spans[number], sites.image))

    def _before_forward(self, image: ImageTokens, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        pixels = args[0] if args else kwargs["pixel_values"]
        self._grid = image.grid(*pixels.shape[-2:])

    def _add(
        self, block: Bypass, span: Span, image: ImageTokens, x: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor:
        special, (rows, columns) = image.special, self._grid
        found = x.shape[1] - special - image.behind
        # where the last layer computes the first token alone, no patch is left
        if x.shape[1] > special and found != rows * columns:
            raise UserError(
                f"method=convpass needs the grid of an image's patches, {rows} x {columns}, and finds"
                f" {found} tokens there: use it without a method that puts prompts among them (vpt)"
            )
        inner = quick_gelu(convolve(quick_gelu(block.down(x)), block.convolution, special, self._grid))
        # the backbone's mode, not our own
        inner = F.dropout(inner, self.config.dropout, span.output.module.training)
        return torch.add(output, block.up(inner), alpha=self.config.scale)

    @staticmethod
    def count(config: ConvpassConfig, sites: Sites) -> int:
        """2md + m + d, and 9m² + m for the convolution, twice a layer."""
        size, hidden = config.size(sites.hidden), sites.hidden
        bypass = 2 * size * hidden + 2 * size + hidden + 9 * size**2
        return len(SUB_LAYERS) * len(layer_numbers(config, sites)) * bypass

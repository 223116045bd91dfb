"""ViT-Adapter's spatial prior module (Chen et al. 2023, §3.2): a small convolutional network beside the ViT."""

import torch
from torch import nn

from peftbench.backbones.batch_norm import BatchNorm


class SpatialPrior(nn.Module):
    """From pixels to four maps of the ViT's width."""

    def __init__(self, channels: int, inner: int, width: int) -> None:
        """`channels`: of an image. inner: of the stem. width: of the maps."""
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(channels, inner, stride=2),
            *_convolution(inner, inner),
            *_convolution(inner, inner),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        widths = (inner, 2 * inner, 4 * inner, 4 * inner)
        self.stages = nn.ModuleList(
            nn.Sequential(*_convolution(before, after, stride=2))
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.projections = nn.ModuleList(nn.Conv2d(each, width, 1) for each in widths)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """(batch, channels, H, W) → (batch, width, H/s, W/s) for the strides s = 4, 8, 16 and 32."""
        maps = [self.stem(pixels)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [projection(each) for projection, each in zip(self.projections, maps, strict=True)]


def _convolution(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
        BatchNorm(after),
        nn.ReLU(inplace=True),
    ]


def count_spatial_prior(channels: int, inner: int, width: int) -> int:
    """9·inner·(channels + 28·inner) in 3 × 3 convolutions, 26·inner in their norms, (11·inner + 4)·width behind."""
    return 9 * inner * (channels + 28 * inner) + 26 * inner + (11 * inner + 4) * width

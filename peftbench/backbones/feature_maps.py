"""From an encoder's tokens to maps of features: the patches' states on their grid, and a pyramid of four such maps.

A method that brings a pyramid of its own (ViT-Adapter) says so in its attachment; the plain one is not built then.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.batch_norm import BatchNorm
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError

Grid = tuple[int, int]


def patch_states(sites: Sites, layers: Sequence[int], pixels: torch.Tensor) -> tuple[torch.Tensor, Grid]:
    """Return the states of the patches, (batch, patches, width), row by row of the grid, and the grid.

    Special tokens and prompts stand before the patches and are cut off.

    Args:
        sites: of the encoder. layers: numbers of those whose outputs are joined, d features each; the last is taken
            as the model returns it: behind its final norm, unless that is its pooler's (BEiT) or for the tower of
            texts (CLIP); any other is normed without a weight.
        pixels: (batch, 3, height, width).

    Raises UserError where the patch does not divide the pictures, or a method leaves no grid of tokens.
    """
    if sites.image is None:
        raise UserError("maps of features are made of images: choose a vision model, such as model=dinov2_small_focus")
    grid = sites.image.grid(*pixels.shape[-2:])
    last = len(sites.layers) - 1
    below = [layer for layer in layers if layer != last]
    with _outputs(sites, below) as lower:
        states = sites.base(pixel_values=pixels).last_hidden_state
    if len(lower) < len(below):
        raise UserError(
            "the head reads the outputs of several layers, of which trainer.cache_frozen=true keeps the last alone: set"
            " task.head_layers=1, or leave it out"
        )
    found = [F.layer_norm(state, state.shape[-1:]) for state in lower] + ([states] if last in layers else [])
    if states.shape[1] < grid[0] * grid[1] + sites.image.behind:
        raise UserError("this method leaves fewer tokens than there are patches: a map of features needs them all")
    return torch.cat([sites.image.of_patches(state, grid) for state in found], -1), grid


@contextmanager
def _outputs(sites: Sites, layers: Sequence[int]) -> Iterator[list[torch.Tensor]]:
    """Gather inside the block what these layers give, in their order."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handles = [sites.layers[layer].register_forward_hook(keep) for layer in sorted(layers)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def as_map(states: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return the patches' states, (batch, patches, width), as a map, (batch, width, rows, columns)."""
    return states.transpose(1, 2).unflatten(2, grid)


class PlainPyramid(nn.Module):
    """Four maps made of one: ×4 and ×2 by transposed convolutions, ×1, and ×½ by max-pooling.

    Li, Mao, Girshick & He, Exploring Plain Vision Transformer Backbones for Object Detection (2022), §3.
    """

    def __init__(self, width: int, joined: int = 1) -> None:
        """`width`: features of a layer. joined: of how many the map holds them; one linear map takes these in."""
        super().__init__()
        self.widths = (width // 4, width // 2, width, width)
        self.join = nn.Conv2d(joined * width, width, 1) if joined > 1 else nn.Identity()
        self.finest = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, stride=2),
            BatchNorm(width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
        )
        self.finer = nn.ConvTranspose2d(width, width // 2, 2, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(batch, joined · width, rows, columns) → four maps, the finest first."""
        x = self.join(x)
        return [self.finest(x), self.finer(x), x, F.max_pool2d(x, 2, ceil_mode=True)]


class ResizedPyramid(nn.Module):
    """Four maps made of one by resizing alone: what stands in for a method's pyramid where that is not attached."""

    def __init__(self, width: int) -> None:
        """`width`: features of the map."""
        super().__init__()
        self.widths = (width, width, width, width)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(batch, width, rows, columns) → four maps of as many features, the finest first."""
        rows, columns = x.shape[-2:]
        sides = [*((factor * rows, factor * columns) for factor in (4, 2, 1)), ((rows + 1) // 2, (columns + 1) // 2)]
        return [F.interpolate(x, each, mode="bilinear", align_corners=False) for each in sides]

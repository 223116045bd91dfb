"""How a model of images makes tokens of one: special ones in front (class token, registers), then patches by rows.

A few models have more special tokens behind the patches.
"""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftbench.backbones.layouts import Layout
from peftbench.errors import UserError

CHANNELS = 3  # images are RGB
INTERPOLATE = "interpolate_pos_encoding"  # transformers' argument, of models that take other sizes only when asked to


@dataclass(frozen=True)
class ImageTokens:
    """The tokens of an image.

    Attributes:
        special: how many stand before the patches.
        patch: height and width of a patch in pixels.
        size: height and width of the images that the positions were made for.
        behind: how many special tokens stand behind the patches.
        any_size: whether it takes images of other sizes: transformers interpolates positions as those of a square.
    """

    special: int
    patch: tuple[int, int]
    size: tuple[int, int]
    behind: int = 0
    any_size: bool = True

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return how many patches an image of so many pixels has, in a column and in a row.

        Raises UserError where the patch does not divide it, or the positions are of another size alone.
        """
        if height % self.patch[0] or width % self.patch[1] or not height or not width:
            high, wide = self.patch
            fitting = f"a size that is a multiple of {high}" if high == wide else f"multiples of {high} and of {wide}"
            raise UserError(
                f"images of {height} x {width} pixels do not fall into the model's patches of {high} x {wide}:"
                f" choose {fitting}"
            )
        if not self.any_size and (height, width) != self.size:
            raise UserError(
                f"images of {height} x {width} pixels do not fit the model's positions, an oblong grid, which"
                f" transformers cannot interpolate: choose {self.size[0]} x {self.size[1]}"
            )
        return height // self.patch[0], width // self.patch[1]

    def count(self, height: int, width: int) -> int:
        """Return how many tokens an image of so many pixels gives, the special ones among them."""
        rows, columns = self.grid(height, width)
        return self.special + rows * columns + self.behind

    def of_patches(self, states: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return the states of the patches, (images, rows·columns, d), from those of all tokens, prompts among them."""
        end = states.shape[1] - self.behind
        return states[:, end - grid[0] * grid[1] : end]


def image_tokens(base: Any, layout: Layout) -> ImageTokens | None:
    """Return how an encoder makes tokens of an image; None for one of text.

    Raises UserError for one that does not take an image as it is: it wants patches or films, or hides some.
    """
    if layout.special_tokens is None:
        return None
    name, cut = type(base).__name__, base.get_submodule(layout.patches)
    if not isinstance(cut, nn.Conv2d) or cut.in_channels != CHANNELS:
        raise UserError(
            f"{name} does not take RGB images as they are ({cut}): choose a model that cuts them into patches"
        )
    if hasattr(base.config, "mask_ratio"):
        raise UserError(
            f"{name} hides and shuffles patches at random in every pass: choose a model that sees all of them"
        )
    config = base.config
    special, behind = (_tokens(base.embeddings, names) for names in (layout.special_tokens, layout.tokens_behind))
    patch, size = _both(config.patch_size), _both(config.image_size)
    # transformers, too, leaves out what is over
    fitting = size[0] // patch[0] * patch[0], size[1] // patch[1] * patch[1]
    square = size[0] // patch[0] == size[1] // patch[1]
    return ImageTokens(special, patch, fitting, behind, square or not interpolates_when_asked(base))


def interpolates_when_asked(base: Any) -> bool:
    """Tell whether a model of images takes those of another size only when it is told to interpolate its positions."""
    return INTERPOLATE in inspect.signature(base.forward).parameters


def _tokens(embeddings: nn.Module, names: Sequence[str]) -> int:
    found = (getattr(embeddings, name, None) for name in names)
    return sum(1 if p.dim() == 1 else p.shape[-2] for p in found if isinstance(p, nn.Parameter))


def _both(sides: Any) -> tuple[int, int]:
    height, width = sides if isinstance(sides, Iterable) else (sides, sides)
    return int(height), int(width)

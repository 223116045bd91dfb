"""How a model of images makes tokens of one: special ones in front (class token, registers), then patches by rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from peftbench.backbones.layouts import Layout
from peftbench.errors import UserError

CHANNELS = 3  # images are RGB


@dataclass(frozen=True)
class ImageTokens:
    """The tokens of an image.

    Attributes:
        special: how many stand before the patches.
        patch: height and width of a patch in pixels.
        size: height and width of the images that the positions were made for.
    """

    special: int
    patch: tuple[int, int]
    size: tuple[int, int]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return how many patches an image of so many pixels has, in a column and in a row.

        Raises UserError where the patch does not divide it.
        """
        if height % self.patch[0] or width % self.patch[1] or not height or not width:
            raise UserError(
                f"images of {height} x {width} pixels do not fall into the model's patches of {self.patch[0]} x"
                f" {self.patch[1]}: choose a size that is a multiple of {max(self.patch)}"
            )
        return height // self.patch[0], width // self.patch[1]

    def count(self, height: int, width: int) -> int:
        """Return how many tokens an image of so many pixels gives, the special ones among them."""
        rows, columns = self.grid(height, width)
        return self.special + rows * columns


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
    config, embeddings = base.config, base.embeddings
    found = (getattr(embeddings, name, None) for name in layout.special_tokens)
    special = sum(1 if p.dim() == 1 else p.shape[-2] for p in found if isinstance(p, nn.Parameter))
    patch, size = _both(config.patch_size), _both(config.image_size)
    # transformers, too, leaves out what is over
    fitting = size[0] // patch[0] * patch[0], size[1] // patch[1] * patch[1]
    return ImageTokens(special, patch, fitting)


def _both(sides: Any) -> tuple[int, int]:
    height, width = sides if isinstance(sides, Iterable) else (sides, sides)
    return int(height), int(width)

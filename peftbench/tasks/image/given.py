"""Images that are given to be answered, as they may come: files, what is in them, or PIL's."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.files import expanded
from peftbench.tasks.image.files import upright
from peftbench.tasks.image.preprocessing import Size

# a file, what is in one, or an image's values (height, width) grey or (height, width, 3), uint8
ImageSource = Path | bytes | np.ndarray


@dataclass(frozen=True)
class GivenImages:
    """Images with what lines call them, their numbers among all that were given, and how many those are."""

    images: list[ImageSource]
    names: list[str]
    filled: list[int]
    count: int


def read_given(given: Any) -> GivenImages:
    """Return images: files by their path (none where that is empty), what is in them (bytes), or PIL's.

    Raises UserError for anything else.
    """
    if isinstance(given, str | bytes | Path) or not isinstance(given, Iterable):
        raise UserError("predict takes a list of images (files, bytes or PIL's), not one: predict([…])")
    found = [_source(item, f"image {number}") for number, item in enumerate(given)]
    for number, image in enumerate(found):
        if image is None:
            raise UserError(f"predict takes a list of images (files, bytes or PIL's), and example {number} is none")
    filled = [number for number, image in enumerate(found) if not (isinstance(image, Path) and image == Path())]
    images = [image for number in filled if (image := found[number]) is not None]
    names = [str(image) if isinstance(image, Path) else f"image {n}" for n, image in zip(filled, images, strict=True)]
    return GivenImages(images, names, filled, len(found))


def _source(given: Any, name: str) -> ImageSource | None:
    if isinstance(given, list | tuple) and len(given) == 1:
        (given,) = given
    if isinstance(given, str):
        return expanded(given)
    if isinstance(given, Path | bytes):
        return given
    return np.asarray(upright(given, name)) if hasattr(given, "convert") else None


def check_reads_images(sites: Sites, task: str, model: str) -> None:
    """Raise UserError where a backbone reads no images; task, model: the names, for the line."""
    if sites.image is None:
        raise UserError(f"task={task} has images, and model={model} reads texts: choose another task or model")


def check_patches(sites: Sites, size: Size) -> None:
    """Raise UserError where a backbone's patch does not divide images of a size."""
    if sites.image is not None:
        sites.image.grid(*size)

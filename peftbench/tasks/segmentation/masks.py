"""Masks as files: one byte a pixel, the number of its class, 255 where it has none."""

from pathlib import Path

import numpy as np

from peftbench.errors import UserError
from peftbench.tasks.segmentation.confusion import VOID

_REMEDY = "save class numbers as a grey PNG of 8 bits (mode L)"
_KINDS = {
    "P": "a palette image, whose numbers stand for colours",
    "I;16": "a 16-bit image",
    "I": "a 32-bit image",
    "RGB": "a colour image",
    "RGBA": "a colour image",
    "1": "a black-and-white image of 1 bit",
}


def read_mask(path: Path, size: tuple[int, int], classes: int | None) -> np.ndarray:
    """Return a mask, (rows, columns) uint8.

    Args:
        path: of the file. size: (rows, columns) of its picture. classes: how many there are; None: not known yet.

    Raises UserError, naming the file, for one that is no such mask, of another size, or with a number that is no class.
    """
    from PIL import Image

    try:
        with path.open("rb") as file, Image.open(file) as image:
            if image.mode != "L":
                kind = _KINDS.get(image.mode, f"of mode {image.mode}")
                raise UserError(f"{path} is {kind}: {_REMEDY}")
            if image.format == "PNG" and (bits := _bits(path)) != 8:  # Pillow stretches them over 0 … 255
                raise UserError(f"{path} is an image of {bits} bits: {_REMEDY}")
            if (image.height, image.width) != size:
                raise UserError(
                    f"{path} has {image.width} x {image.height} pixels, its picture {size[1]} x {size[0]}: they"
                    " must have as many"
                )
            mask = np.asarray(image)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such mask") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no mask that can be read: {str(error).splitlines()[0]}") from error
    if classes is not None and (wrong := mask[(mask >= classes) & (mask != VOID)]).size:
        raise UserError(
            f"{path}: {wrong[0]} is no class, there are {classes} (0 … {classes - 1}) and {VOID} for none; name all in"
            " task.labels or classes.json"
        )
    return mask


def _bits(path: Path) -> int:
    """Return how many bits a value of a PNG has: the byte behind width and height."""
    with path.open("rb") as file:
        return file.read(25)[24]


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask, (rows, columns) uint8, as a grey PNG; raises UserError where that is refused."""
    from PIL import Image

    from peftbench.files import atomic_write

    with atomic_write(path, binary=True) as file:
        Image.fromarray(mask).save(file, "PNG")

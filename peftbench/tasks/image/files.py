"""Image files: opened, checked, and turned into RGB as they are meant to be seen."""

from io import BytesIO
from pathlib import Path
from typing import Any

from peftbench.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
# a side beyond this is no photograph, and its pixels alone may take all memory
LARGEST_SIDE = 20_000


def open_image(source: Path | bytes, name: str) -> Any:
    """Return an image as PIL's, RGB, turned upright as its EXIF data say.

    Args:
        source: its file, or what is in it. name: what the line calls it where it cannot be read.

    Raises UserError for what is no image, is cut short, or is larger than `LARGEST_SIDE` on a side.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            if max(width, height) > LARGEST_SIDE:
                raise UserError(f"{name} is {width} × {height} pixels: at most {LARGEST_SIDE:,} on a side are read")
            return ImageOps.exif_transpose(_eight_bits(image)).convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"no such image: {name}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is no image that can be read (or it is damaged)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is damaged or cut short: {str(error).splitlines()[0]}") from error


def _eight_bits(image: Any) -> Any:
    """Bring grey values of 16 bits to 8: PIL itself would cut off all that is above 255."""
    if image.mode.startswith("I"):
        import numpy as np
        from PIL import Image

        return Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; hidden ones are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )

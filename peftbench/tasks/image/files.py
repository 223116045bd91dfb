"""Image files: opened, checked, and turned into RGB as they are meant to be seen."""

import os
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from peftbench.errors import UserError, first_line
from peftbench.files import check_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
# a side beyond this is no photograph, and its pixels alone may take all memory
LARGEST_SIDE = 20_000
# how many times as long as the other a side may be: brought to a model's shorter side, more takes all memory
LONGEST_SHAPE = 1_000
# Pillow's own bound is an error; what it warns of below that is read
warnings.filterwarnings("ignore", "Image size .* exceeds limit")


def open_image(source: Path | bytes, name: str) -> Any:
    """Return an image as PIL's, RGB, turned upright as its EXIF data say.

    Args:
        source: its file, or what is in it. name: what the line calls it where it cannot be read.

    Raises UserError for what is no image, is cut short, is larger than `LARGEST_SIDE` on a side, or a mere line.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(source, Path) and not source.is_dir():
            check_regular(source)
        # not by its path: of a turned TIFF that Pillow maps into memory the rows would be as long as its columns
        with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file, Image.open(file) as image:
            width, height = image.size
            if max(width, height) > LARGEST_SIDE:
                raise UserError(f"{name} is {width} × {height} pixels: at most {LARGEST_SIDE:,} on a side are read")
            if max(width, height) > LONGEST_SHAPE * min(width, height):
                raise UserError(f"{name} is a line of {width} × {height} pixels, no picture: leave it out or cut it")
            return upright(image, name)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"no such image: {name}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} has more pixels than are read: {first_line(error)}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is no image that can be read (or it is damaged)") from error
    except OSError as error:
        what = f"cannot read {name}" if error.errno else f"{name} is damaged or cut short"
        raise UserError(f"{what}: {error.strerror or first_line(error)}") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"{name} is damaged or cut short: {first_line(error)}") from error


def upright(image: Any, name: str) -> Any:
    """Return PIL's image as RGB, turned as its EXIF data say; UserError where its values are no colours."""
    from PIL import ImageOps

    if image.mode == "F":
        raise UserError(f"{name} holds fractions, whose black and white are not known: save it with 8 or 16 bits")
    image.load()  # a TIFF is turned then
    image = _eight_bits(ImageOps.exif_transpose(image), name)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns otherwise
    return image.convert("RGB")


def _eight_bits(image: Any, name: str) -> Any:
    """Bring grey values of 16 bits to 8: PIL itself would cut off all that is above 255."""
    if image.mode.startswith("I"):
        import numpy as np
        from PIL import Image

        values = np.asarray(image, dtype=np.int64)
        # of 8 or 12 bits, as cameras write them into 16, they would come out black
        if values.min() < 0 or 0 < values.max() < 1 << 12 or values.max() >= 1 << 16:
            raise UserError(
                f"{name} holds values of {32 if image.mode == 'I' else 16} bits from {values.min()} to {values.max()},"
                " whose black and white are not known: save it with 8 bits, or spread over 0 to 65,535"
            )
        return Image.fromarray((values >> 8).astype(np.uint8))
    return image


def as_text(path: Path | str) -> str:
    """Return a path as a file of text can hold it: of a name that is not UTF-8, the bytes that are not as escapes."""
    return str(path).encode(errors="backslashreplace").decode()


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; hidden ones are left out.

    Links to nothing are among them, since a link to an image that is lost must not go unseen. Raises UserError where
    the folder cannot be read.
    """
    try:
        return _images_among(folder.iterdir())
    except OSError as error:
        raise _unreadable_folder(error) from error


def images_below(folder: Path) -> list[Path]:
    """Return the image files in a folder's folders, however deep, in the order of their paths; hidden ones left out.

    Links to folders are followed; of a folder that is reached twice the first way counts. Raises UserError where one
    of the folders cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for at, folders, files in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        if (real := os.path.realpath(at)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += _images_among(Path(at, name) for name in files)
    return found


def _images_among(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES
        and (path.is_file() or (path.is_symlink() and not path.exists()))
        and not path.name.startswith(".")
    )


def _refuse_folder(error: OSError) -> None:
    raise _unreadable_folder(error) from error


def _unreadable_folder(error: OSError) -> UserError:
    return UserError(f"cannot read the folder {error.filename}: {error.strerror}")

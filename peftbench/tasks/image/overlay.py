"""Pictures with masks or boxes drawn over them, a colour for each class."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np

from peftbench.tasks.segmentation.confusion import VOID

_TURN = 0.618034  # of the colour circle from class to class: neighbours in number look different
_STRENGTH = 0.5  # of a mask's colour over the picture


def class_colours(count: int) -> np.ndarray:
    """Return a colour for each class, (count, 3) uint8."""
    hues = [(index * _TURN) % 1 for index in range(count)]
    shades = [colorsys.hsv_to_rgb(hue, 0.85 - 0.3 * (index % 2), 1.0) for index, hue in enumerate(hues)]
    return np.round(255 * np.array(shades).reshape(-1, 3)).astype(np.uint8)


def with_mask(image: Any, mask: np.ndarray, classes: Sequence[str]) -> Any:
    """Return PIL's image with the classes' colours half over it; pixels without a class stay as they are.

    `mask` is (rows, columns) of class numbers, as large as the image.
    """
    from PIL import Image

    pixels = np.asarray(image.convert("RGB")).astype(np.float32)
    known = mask != VOID
    colours = class_colours(len(classes))[mask[known]]
    pixels[known] = (1 - _STRENGTH) * pixels[known] + _STRENGTH * colours
    return Image.fromarray(pixels.round().astype(np.uint8))


def with_boxes(image: Any, boxes: np.ndarray, classes: Sequence[str], scores: Sequence[float] = ()) -> Any:
    """Return PIL's image with boxes around objects and their classes' names above, and how sure each is.

    Args:
        boxes: (boxes, 5): class, x and y of the centre, width, height in shares of the picture. scores: of each box.
    """
    from PIL import ImageDraw

    drawn = image.convert("RGB")
    draw, colours = ImageDraw.Draw(drawn), class_colours(len(classes))
    line = max(1, round(min(drawn.size) / 200))
    for number, (kind, x, y, width, height) in enumerate(boxes.tolist()):
        colour = tuple(colours[int(kind)].tolist())
        sides = [(x - width / 2), (y - height / 2), (x + width / 2), (y + height / 2)]
        corners = [side * length for side, length in zip(sides, drawn.size * 2, strict=True)]
        draw.rectangle(corners, outline=colour, width=line)
        name = classes[int(kind)] + (f" {100 * scores[number]:.0f} %" if len(scores) else "")
        room = draw.textbbox((corners[0], corners[1]), name, anchor="lb")
        low = (corners[0], max(corners[1], room[3] - room[1]))
        draw.rectangle(draw.textbbox(low, name, anchor="lb"), fill=(0, 0, 0))
        draw.text(low, name, fill=colour, anchor="lb")
    return drawn

"""Flips and crops of training pictures, the same for pixels, masks and boxes; drawn anew from (seed, epoch, index)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

# tells these random numbers from those of the order of the batches
_OF_PICTURES = 2
_MOST_STRETCHED = 4 / 3  # sides of a crop, in shares of the picture's
_LEAST_SEEN = 0.3  # of a box, for it to stay in a crop


@dataclass(frozen=True)
class View:
    """What is seen of a picture: a part of it, in shares of its height and width, mirrored left to right or not."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0
    flipped: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.height == self.width == 1.0

    def in_pixels(self, rows: int, columns: int) -> "View":
        """Return the nearest view of whole pixels, so that masks and boxes are cut where the pixels are."""
        height, width = max(1, round(self.height * rows)), max(1, round(self.width * columns))
        top, left = min(round(self.top * rows), rows - height), min(round(self.left * columns), columns - width)
        return View(top / rows, left / columns, height / rows, width / columns, self.flipped)


def draw_view(flip: bool, crop: float, seed: int, epoch: int, index: int) -> View:
    """Draw how picture `index` is seen in an epoch; the same for the same numbers.

    Args:
        flip: every second picture is mirrored. crop: the least share of its area that is seen, 1 for all of it.
    """
    random = np.random.default_rng((seed, epoch, _OF_PICTURES, index))
    flipped = bool(flip and random.random() < 0.5)
    if crop >= 1:
        return View(flipped=flipped)
    area, stretched = random.uniform(crop, 1.0), random.uniform(-1.0, 1.0)
    height = min(1.0, float(np.sqrt(area * _MOST_STRETCHED**stretched)))
    width = min(1.0, float(area / height))
    top, left = random.random() * (1 - height), random.random() * (1 - width)
    return View(top, left, height, width, flipped)


def view_pixels(pixels: torch.Tensor, view: View) -> torch.Tensor:
    """Return what is seen of pixels, (channels, rows, columns) uint8, in the size they had; of whole ones."""
    if not view.whole:
        rows, columns = pixels.shape[-2:]
        top, left = round(view.top * rows), round(view.left * columns)
        bottom, right = top + round(view.height * rows), left + round(view.width * columns)
        part = pixels[None, :, top:bottom, left:right].float()
        scaled = F.interpolate(part, (rows, columns), mode="bilinear", align_corners=False, antialias=True)
        pixels = scaled[0].round_().to(torch.uint8)
    return pixels.flip(-1) if view.flipped else pixels


def view_mask(mask: torch.Tensor, view: View) -> torch.Tensor:
    """Return what is seen of a mask of class numbers, (rows, columns), in the size it had: no number is mixed."""
    if not view.whole:
        # at the middle of each place, also where the mask's pixels are not the picture's
        at = [
            ((start + extent * (torch.arange(count) + 0.5) / count) * count).long().clamp(max=count - 1)
            for start, extent, count in zip((view.top, view.left), (view.height, view.width), mask.shape, strict=True)
        ]
        mask = mask[at[0][:, None], at[1]]
    return mask.flip(-1) if view.flipped else mask


def view_boxes(boxes: torch.Tensor, view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """Return boxes as they lie in what is seen, cut to it, and which of them are seen well enough to be told.

    Args:
        boxes: (boxes, 4), x and y of the centre, width and height, in shares of the picture.

    Returns the same form, and (boxes,) bool: at least three tenths of the box are in sight.
    """
    offset = boxes.new_tensor([view.left, view.top])
    size = boxes.new_tensor([view.width, view.height])
    low = (boxes[:, :2] - boxes[:, 2:] / 2 - offset) / size
    high = (boxes[:, :2] + boxes[:, 2:] / 2 - offset) / size
    seen_low, seen_high = low.clamp(0, 1), high.clamp(0, 1)
    extent = seen_high - seen_low
    seen = extent.prod(-1) >= _LEAST_SEEN * (high - low).prod(-1)
    centre = (seen_low + seen_high) / 2
    if view.flipped:
        centre = torch.stack([1 - centre[:, 0], centre[:, 1]], -1)
    return torch.cat([centre, extent], -1), seen & (extent > 0).all(-1)

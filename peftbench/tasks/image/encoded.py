"""Images of a split, decoded once and kept as bytes of one size; batches of them."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from peftbench.interruption import check_interrupted
from peftbench.scratch import scratch_bytes
from peftbench.tasks.base import Batch, Examples
from peftbench.tasks.image.augment import View, draw_view, view_pixels
from peftbench.tasks.image.preprocessing import Preprocessing

# what is larger lies in a temporary file that is mapped into memory
IN_MEMORY_BYTES = 1 << 30
# a file's pixels are read while those of others are decoded: decoding leaves the interpreter to the others
_READERS = 4
_AT_ONCE = 16
# the least share of an image that a crop in training shows
LEAST_SHOWN = 0.5


@dataclass(frozen=True)
class EncodedImages(Examples):
    """A split whose images are bytes of one size.

    Attributes:
        pixels: (images, channels, height, width) uint8, in memory or mapped into it.
        rows: which of them are the examples, (examples,).
        labels: (examples,) class indices, or None where they are hidden.
        preprocessing: turns bytes into the model's input.
        augment: what training does at random, out of flip and crop.
        epoch: (seed, epoch) that chance is drawn from; None outside of training.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: torch.Tensor | None
    preprocessing: Preprocessing
    augment: tuple[str, ...] = ()
    epoch: tuple[int, int] | None = None

    @property
    def sizes(self) -> np.ndarray:
        """All are alike."""
        return np.ones(len(self.rows), dtype=np.int64)

    def batch(self, indices: Sequence[int], multiple: int = 1) -> Batch:
        """Return these images, (batch, channels, height, width) float32, and their labels."""
        images = torch.from_numpy(self.pixels[self.rows[list(indices)]])
        if views := self.views(indices):
            images = torch.stack([view_pixels(image, view) for image, view in zip(images, views, strict=True)])
        batch = {"pixel_values": self.preprocessing.normalised(images)}
        if self.labels is not None:
            batch["labels"] = self.labels[list(indices)]
        return batch

    def views(self, indices: Sequence[int]) -> list[View]:
        """Return what training sees of these images; nothing where it sees them as they are."""
        if not self.augment or self.epoch is None:
            return []
        flip, crop = "flip" in self.augment, LEAST_SHOWN if "crop" in self.augment else 1.0
        rows, columns = self.pixels.shape[-2:]
        return [draw_view(flip, crop, *self.epoch, int(self.rows[index])).in_pixels(rows, columns) for index in indices]

    def augmented(self, seed: int, epoch: int) -> "EncodedImages":
        """Return the images as an epoch of training sees them."""
        return replace(self, epoch=(seed, epoch)) if self.augment else self

    def timed_sizes(self, lengths: Sequence[int]) -> list[int | tuple[int, int]]:
        """Return the one size that the images have."""
        return [self.preprocessing.size]

    def subset(self, indices: Sequence[int]) -> "EncodedImages":
        """Return these examples alone, in this order."""
        labels = None if self.labels is None else self.labels[list(indices)]
        return replace(self, rows=self.rows[list(indices)], labels=labels)


def encode_images(
    count: int,
    open_one: Callable[[int], Any],
    labels: torch.Tensor | None,
    preprocessing: Preprocessing,
    augment: Sequence[str],
) -> EncodedImages:
    """Decode and resize a split's images, several at a time.

    Args:
        count: how many there are. open_one: returns image i as PIL's.
        labels: (images,), or None. preprocessing: of the checkpoint. augment: out of flip and crop.

    Raises UserError for an image that cannot be read and where there is no room for all, KeyboardInterrupt where a
    signal has come.
    """

    def read(start: int) -> tuple[int, np.ndarray]:
        indices = range(start, min(start + _AT_ONCE, count))
        return start, np.concatenate([preprocessing.pixels([open_one(index)]) for index in indices])

    pixels = room_for((count, len(preprocessing.mean), *preprocessing.size), "images")
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for start, part in pool.map(read, range(0, count, _AT_ONCE)):
                check_interrupted()
                pixels[start : start + len(part)] = part
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return EncodedImages(pixels, np.arange(count), labels, preprocessing, tuple(augment))


def room_for(shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return an array of bytes for pictures or masks, (count, …, height, width), in memory where they fit.

    Raises UserError, naming `what` they are, where there is no room on disk either.
    """
    if math.prod(shape) <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    purpose = f"keeping {shape[0]:,} {what} of {shape[-2]:,} × {shape[-1]:,} pixels"
    return scratch_bytes(math.prod(shape), purpose, "lower task.image_size").reshape(shape)

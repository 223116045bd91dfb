"""A task whose examples are images: prepared by the backbone's image processor."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.tasks.base import Given, Task, as_tensor
from peftbench.tasks.classification import untrained_classes
from peftbench.tasks.image.encoded import EncodedImages, encode_images
from peftbench.tasks.image.files import open_image
from peftbench.tasks.image.given import ImageSource, check_patches, check_reads_images, read_given
from peftbench.tasks.image.preprocessing import preprocessing_of


@dataclass(frozen=True)
class ImageSplit:
    """Images; `labels` are class indices, None where they are hidden; `names` are what lines call the images."""

    images: Sequence[ImageSource]
    names: Sequence[str]
    labels: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Any:
        """Return an image as PIL's, RGB. Raises UserError where it cannot be read."""
        image = self.images[index]
        if isinstance(image, np.ndarray):
            from PIL import Image

            return Image.fromarray(image).convert("RGB")
        return open_image(image, self.names[index])

    def digests(self) -> Iterator[str]:
        """Yield the SHA-256 of each image as it was stored."""
        for image, name in zip(self.images, self.names, strict=True):
            try:
                data = image.read_bytes() if isinstance(image, Path) else bytes(image)
            except OSError as error:
                raise UserError(f"cannot read {name}: {error.strerror}") from error
            yield hashlib.sha256(data).hexdigest()

    def subset(self, rows: Sequence[int]) -> "ImageSplit":
        """Return these images alone, in this order."""
        labels = None if self.labels is None else [self.labels[row] for row in rows]
        return ImageSplit([self.images[row] for row in rows], [self.names[row] for row in rows], labels)

    def content(self, name: str) -> Iterator[bytes]:
        """Yield the split's name, the digest of each image, and the labels."""
        yield name.encode()
        for digest in self.digests():
            yield digest.encode()
        yield str(self.labels).encode()


@dataclass(frozen=True)
class ImageTask(Task):
    """Images with a class each.

    Attributes:
        image_size: side of the square, or (height, width), in pixels; None for the checkpoint's own.
        augment: what training does at random, out of flip and crop.
    """

    image_size: int | tuple[int, ...] | None
    augment: tuple[str, ...]

    def encode(self, split: ImageSplit, sites: Sites) -> EncodedImages:
        """Decode a split, as the backbone's image processor prepares it."""
        preprocessing = preprocessing_of(sites.processor, self.image_size)
        return encode_images(len(split), split.open, as_tensor(split.labels), preprocessing, self.augment)

    def processor(self, sites: Sites) -> Any:
        """Return the image processor, set to the size of this task's images."""
        return preprocessing_of(sites.processor, self.image_size).sized_processor()

    def write_examples(self, split: str, folder: Path) -> dict[str, Any]:
        """Write the images as they are seen, each a file without loss, and return their paths."""
        images = self.splits[split]
        paths = [str(folder / f"{number}.png") for number in range(len(images))]
        for number, path in enumerate(paths):
            images.open(number).save(path)
        return {"images": paths}

    def read_examples(self, given: Any) -> Given:
        """Return images: files by their path, what is in them (bytes), or PIL's."""
        found = read_given(given)
        return Given(ImageSplit(found.images, found.names), found.filled, found.count)

    def check_model(self, sites: Sites, model: str) -> None:
        """Raise UserError where the backbone reads no images, or its patch does not divide their size."""
        check_reads_images(sites, self.name, model)
        check_patches(sites, preprocessing_of(sites.processor, self.image_size).size)

    def warnings(self, encoded: Mapping[str, Any]) -> list[str]:
        """Return what the user should know of the images."""
        return [*overlaps(self.splits), *untrained_classes(self.labels, self.splits, "image")]


def overlaps(splits: Mapping[str, ImageSplit]) -> list[str]:
    """Return a line for each split that shares images with the training data."""
    train = set(splits["train"].digests()) if "train" in splits else set()
    others = {name: split for name, split in splits.items() if train and name != "train"}
    shared = {name: sum(digest in train for digest in split.digests()) for name, split in others.items()}
    return [
        f"{common:,} of {len(splits[name]):,} {name} images also occur in the training data (leakage)"
        for name, common in shared.items()
        if common
    ]

"""What segmentation and detection share: pictures brought to one size together with what is told at every place."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.tasks.base import Batch, Given, Task
from peftbench.tasks.classification import untrained
from peftbench.tasks.image.augment import View
from peftbench.tasks.image.encoded import EncodedImages, encode_images
from peftbench.tasks.image.given import check_reads_images, read_given
from peftbench.tasks.image.preprocessing import preprocessing_of
from peftbench.tasks.image.task import ImageSplit, overlaps

Size = tuple[int, int]  # height, width

# the longer side of a picture where the task does not say how large pictures are to be
_LONGEST = 512
# a picture is stretched to another shape where its sides' proportion is this little off; else it is padded
_LIKE = 1.05
_MOST_PADDED = 1 << 24  # pixels of a picture with its padding, before it is brought to its size


@dataclass(frozen=True)
class DenseSplit:
    """Pictures, and what is told at every place of them.

    Attributes:
        pictures: as they were given. size: (height, width) that all are brought to.
        labels: (examples, …), as the task's objective takes them; None where they are hidden.
    """

    pictures: ImageSplit
    size: Size
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def open(self, index: int) -> Any:
        """Return a picture as PIL's, RGB, padded to the shape of `size`. Raises UserError where it cannot be read."""
        return padded(self.pictures.open(index), self.size)

    def given_size(self, index: int) -> Size:
        """Return height and width of a picture as it was given."""
        image = self.pictures.open(index)
        return image.height, image.width

    def subset(self, rows: Sequence[int]) -> "DenseSplit":
        """Return these pictures alone, in this order."""
        labels = None if self.labels is None else self.labels[list(rows)]
        return replace(self, pictures=self.pictures.subset(rows), labels=labels)

    def content(self, name: str) -> Iterator[bytes]:
        """Yield the split's name, the digest of each picture, and the labels."""
        yield f"{name} {self.size}".encode()
        for digest in self.pictures.digests():
            yield digest.encode()
        yield b"" if self.labels is None else np.ascontiguousarray(self.labels).tobytes()


def split_of_files(files: Sequence[Path], size: Size, labels: np.ndarray) -> DenseSplit:
    """Return a split of pictures in files."""
    return DenseSplit(ImageSplit(files, list(map(str, files))), size, labels)


def shape_in(size: Size, height: int, width: int) -> tuple[float, float]:
    """Return which share of the height and width of `size` a picture takes: all, or less of one where it is padded."""
    off = (width / height) / (size[1] / size[0])
    if 1 / _LIKE <= off <= _LIKE:
        return 1.0, 1.0
    return (1 / off, 1.0) if off > 1 else (1.0, off)


def padded(image: Any, size: Size) -> Any:
    """Return PIL's image with grey below it or right of it, so that it has the proportions of `size`."""
    from PIL import Image

    high, wide = shape_in(size, image.height, image.width)
    if high == wide == 1:
        return image
    # a long picture's padding may be a hundred times as large as itself
    scale = min(1.0, (_MOST_PADDED * wide * high / (image.width * image.height)) ** 0.5)
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    canvas = Image.new(image.mode, (round(image.width / wide), round(image.height / high)), (128, 128, 128))
    canvas.paste(image, (0, 0))
    return canvas


def common_size(sizes: Sequence[Size]) -> Size:
    """Return the commonest size of pictures, made smaller where its longer side is beyond 512 pixels."""
    (height, width), _ = Counter(sizes).most_common(1)[0]
    scale = min(1.0, _LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def picture_size(path: Path) -> Size:
    """Return height and width of a picture's file as it is seen; UserError where it cannot be read."""
    from PIL import ExifTags, Image

    try:
        with Image.open(path) as image:
            # by a camera on its side; a TIFF's size is given as turned already
            turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
            return (image.width, image.height) if turned else (image.height, image.width)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} has more pixels than are read: {str(error).splitlines()[0]}") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise UserError(f"{path} is no image that can be read (or it is damaged)") from error


@dataclass(frozen=True)
class EncodedDense(EncodedImages):
    """Pictures whose labels are flipped and cut as they are; `task` knows how."""

    task: "DenseTask | None" = None

    def batch(self, indices: Sequence[int], multiple: int = 1) -> Batch:
        """Return these pictures, (batch, channels, height, width) float32, and their labels."""
        batch = super().batch(indices, multiple)
        if (views := self.views(indices)) and "labels" in batch:
            assert self.task is not None
            pairs = zip(batch["labels"], views, strict=True)
            batch["labels"] = torch.stack([self.task.apply_view(label, view) for label, view in pairs])
        return batch


@dataclass(frozen=True)
class DenseTask(Task):
    """Pictures with something told at every place.

    Attributes:
        size: (height, width) that pictures are brought to; the model is given the nearest size of whole patches.
        augment: what training does at random, out of flip and crop.
    """

    unit: ClassVar[str]  # what has a class
    size: Size
    augment: tuple[str, ...]

    def encode(self, split: DenseSplit, sites: Sites) -> EncodedDense:
        """Decode a split, as the backbone's image processor prepares it, in whole patches of the backbone's."""
        assert sites.image is not None
        height, width = (
            max(1, round(side / patch)) * patch for side, patch in zip(self.size, sites.image.patch, strict=True)
        )
        labels = None if split.labels is None else torch.from_numpy(split.labels)
        preprocessing = preprocessing_of(sites.processor, (height, width), whole=True)  # masks and boxes are of all
        encoded = encode_images(len(split), split.open, labels, preprocessing, self.augment)
        return EncodedDense(**vars(encoded), task=self)

    @property
    def settings_from_data(self) -> dict[str, Any]:
        """The size, where the data said it."""
        return {"image_size": list(self.size)}

    def read_examples(self, given: Any) -> Given:
        """Return pictures: files by their path (none where that is empty), what is in them (bytes), or PIL's."""
        found = read_given(given)
        return Given(DenseSplit(ImageSplit(found.images, found.names), self.size), found.filled, found.count)

    def check_model(self, sites: Sites, model: str) -> None:
        """Raise UserError where the backbone reads no images."""
        check_reads_images(sites, self.name, model)

    @abstractmethod
    def apply_view(self, label: torch.Tensor, view: View) -> torch.Tensor:
        """Return one example's label, flipped and cut as its picture is in a view."""

    @abstractmethod
    def classes_in(self, labels: np.ndarray) -> set[int]:
        """Return the classes that occur in the labels of some pictures."""

    def warnings(self, encoded: Mapping[str, Any]) -> list[str]:
        """Return what the user should know of the pictures."""
        found = overlaps({name: split.pictures for name, split in self.splits.items()})
        train = self.splits.get("train")
        if train is None or train.labels is None:
            return found
        return [*found, *untrained(self.labels, self.classes_in(train.labels), self.unit)]

"""What a checkpoint's image processor does, in two steps: to pixels of one size, kept as bytes, and to numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from peftbench.errors import UserError

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Preprocessing:
    """How images become a model's input.

    Attributes:
        processor: transformers' image processor of the checkpoint.
        size: (height, width) that the model is given.
        resizing: arguments of the processor that lead there.
        mean, deviation: of each channel, in units of the bytes, (channels, 1, 1).
    """

    processor: Any
    size: Size
    resizing: dict[str, Any]
    mean: torch.Tensor
    deviation: torch.Tensor

    def pixels(self, images: Sequence[Any]) -> np.ndarray:
        """Return PIL's images as the processor resizes and crops them, (images, channels, height, width) uint8.

        Raises UserError where it makes them of another size than it is told.
        """
        found = self.processor.preprocess(list(images), do_rescale=False, do_normalize=False, **self.resizing)
        for image in found["pixel_values"]:
            if tuple(image.shape[-2:]) != self.size:
                (height, width), (rows, columns) = image.shape[-2:], self.size
                kept = ": set keep_aspect_ratio to false in the model's preprocessor_config.json"
                raise UserError(
                    f"the model's image processor makes an image of {height} x {width} pixels where it is told"
                    f" {rows} x {columns}{kept if getattr(self.processor, 'keep_aspect_ratio', False) else ''}"
                )
        return (
            np.stack([np.asarray(image) for image in found["pixel_values"]]).clip(0, 255).astype(np.uint8, copy=False)
        )

    def sized_processor(self) -> Any:
        """Return the processor set to this size, as an export brings it along."""
        return type(self.processor).from_dict(self.processor.to_dict() | self.resizing)

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return bytes, (images, channels, height, width), as the model takes them, float32."""
        return (pixels.float() - self.mean) / self.deviation


def preprocessing_of(processor: Any, image_size: int | Sequence[int] | None, whole: bool = False) -> Preprocessing:
    """Return how a checkpoint's processor prepares images of a size.

    Where it crops the centre out of something larger, it does so at any size of a square, in the same proportion,
    unless the `whole` image is to be seen; an oblong is what the whole image is stretched to.

    Args:
        processor: of the checkpoint. image_size: side of a square, (height, width), or None for the checkpoint's own.

    Raises UserError where the checkpoint's own size is needed, and it has none.
    """
    crops = bool(processor.do_center_crop)
    usual = processor.crop_size if crops else processor.size
    side = usual and (usual.height or usual.shortest_edge)
    if not side and (crops or image_size is None):
        raise UserError(
            "the model's preprocessor_config.json does not say how large its images are: set task.image_size, or size"
            " there to a height and a width"
        )
    size = (side, usual.width or side) if image_size is None else _pair(image_size)
    resizing: dict[str, Any] = {
        "do_resize": True,
        "size": {"height": size[0], "width": size[1]},
        "do_center_crop": False,
    }
    if crops and size[0] == size[1] and not whole:
        larger = (processor.size.shortest_edge or processor.size.height) * size[0] / side
        edge = max(size[0], round(larger))
        shape = {"shortest_edge": edge} if processor.size.shortest_edge else {"height": edge, "width": edge}
        resizing |= {"size": shape, "crop_size": {"height": size[0], "width": size[1]}, "do_center_crop": True}
    unit = processor.rescale_factor if processor.do_rescale else 1.0
    mean, deviation = (0.0, 1.0)
    if processor.do_normalize:
        mean, deviation = processor.image_mean, processor.image_std
        if not np.all(deviation):
            raise UserError(
                "image_std in the model's preprocessor_config.json must not be 0: no image would be a number"
            )
    return Preprocessing(processor, size, resizing, _channels(mean) / unit, _channels(deviation) / unit)


def _pair(image_size: int | Sequence[int]) -> Size:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width


def _channels(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1).expand(3, 1, 1)  # images are RGB

"""A class for each pixel: cross-entropy that leaves out void pixels, mean intersection over union."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from peftbench.tasks.base import Batch
from peftbench.tasks.segmentation.confusion import (
    VOID,
    check_metrics,
    class_iou,
    pixel_confusions,
    segmentation_score,
)

_AT_ONCE = 16


@dataclass(frozen=True)
class Segmentation:
    """An objective with an output for each class at each place of a map.

    Attributes:
        classes: names by number, as masks hold them.
        size: (rows, columns) of the masks, to which logits of any coarser map are scaled up bilinearly.
    """

    form: ClassVar[str] = "pixels"

    classes: tuple[str, ...]
    size: tuple[int, int]

    @property
    def num_outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy over the pixels of a batch that have a class; 0 where none has."""
        total, pixels = _cross_entropy(self._scaled(outputs.logits), batch["labels"])
        return total / pixels.clamp(min=1)

    def _scaled(self, logits: torch.Tensor) -> torch.Tensor:
        return F.interpolate(logits.float(), self.size, mode="bilinear", align_corners=False)

    def describe(self, labels: Sequence[Any]) -> str:
        """Return which share of the pixels each class has, the most frequent first, and how many are void."""
        counts = np.bincount(np.asarray(labels).ravel(), minlength=VOID + 1)
        pixels = max(1, int(counts.sum()))
        order = np.argsort(-counts[: self.num_outputs], kind="stable").tolist()
        named = [f"{self.classes[index]} {100 * counts[index] / pixels:.1f} %" for index in order]
        void = [f"void {100 * counts[VOID] / pixels:.1f} %"] if counts[VOID] else []
        return ", ".join([*named, *void])

    def read_out(self, logits: torch.Tensor) -> tuple[np.ndarray, None]:
        """Return the most probable class of each pixel, (examples, rows, columns) uint8."""
        return np.concatenate([_most_probable(part) for part in self._parts(logits)]), None

    def _parts(self, logits: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the logits in the masks' size, a few examples at a time: all together would be large."""
        return (self._scaled(part) for part in logits.split(_AT_ONCE))

    def by_class(self, predictions: np.ndarray, labels: Sequence[Any]) -> dict[str, Any]:
        """Return the classes' names, the IoU of each (0 for one that does not occur), and the pixels' confusion."""
        confusion = pixel_confusions(predictions, np.asarray(labels), self.num_outputs).sum(0)
        return {"names": list(self.classes), "iou": class_iou(confusion)[0].tolist(), "confusion": confusion.tolist()}

    def score(self, metrics: Sequence[str], logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return the metrics over all pixels of a split, and the loss."""
        check_metrics(metrics)
        confusion, total, pixels = np.zeros((self.num_outputs, self.num_outputs), np.int64), 0.0, 0
        for scaled, masks in zip(self._parts(logits), labels.split(_AT_ONCE), strict=True):
            confusion += pixel_confusions(_most_probable(scaled), masks.numpy(), self.num_outputs).sum(0)
            loss, known = _cross_entropy(scaled, masks)
            total, pixels = total + float(loss), pixels + int(known)
        scores = {metric: float(segmentation_score(metric, confusion)) for metric in metrics}
        return {**scores, "loss": total / max(1, pixels)}


def _most_probable(scaled: torch.Tensor) -> np.ndarray:
    return scaled.argmax(1).to(torch.uint8).numpy()


def _cross_entropy(scaled: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return its sum over the pixels with a class, and how many these are; logits in the masks' size."""
    masks = masks.long()
    return F.cross_entropy(scaled, masks, ignore_index=VOID, reduction="sum"), (masks != VOID).sum()

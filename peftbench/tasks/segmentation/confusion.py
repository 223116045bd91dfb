"""What becomes of the pixels of each class, counted, and the scores made of these counts; without torch."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from peftbench.errors import UserError, nearest

VOID = 255  # of masks: pixels that belong to no class, which nothing is learned from and nothing scored on
METRICS = ("miou", "pixel_accuracy")


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise UserError for a metric that does not judge masks."""
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"task.metrics: {name!r} does not judge masks. {nearest(name, METRICS)}")


def pixel_confusions(predictions: np.ndarray, masks: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of each picture, (examples, classes, classes): true class by row, predicted by column.

    Args:
        predictions, masks: (examples, rows, columns) class numbers; pixels whose mask is `VOID` are left out.
    """
    counts = np.empty((len(masks), classes, classes), np.int64)
    for count, predicted, mask in zip(counts, predictions, masks, strict=True):
        known = mask != VOID
        cells = mask[known].astype(np.int64) * classes + predicted[known]
        count[:] = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return counts


def class_iou(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each class's intersection over union, and whether it occurs among masks or predictions; (..., classes).

    `confusion` is (..., classes, classes); a class that does not occur has 0.
    """
    found = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    union = confusion.sum(-1) + confusion.sum(-2) - found
    return np.divide(found, union, out=np.zeros_like(found), where=union > 0), union > 0


def segmentation_score(metric: str, confusion: np.ndarray) -> Any:
    """Return `miou`, the mean IoU of the classes that occur, or `pixel_accuracy`, of (..., classes, classes) counts."""
    if metric == "pixel_accuracy":
        pixels = confusion.sum((-2, -1))
        right = np.trace(confusion, axis1=-2, axis2=-1)
        return np.divide(right, pixels, out=np.zeros(np.shape(pixels)), where=pixels > 0)[()]
    iou, occurs = class_iou(confusion)
    return iou.sum(-1) / np.maximum(1, occurs.sum(-1))

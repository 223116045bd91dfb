"""Boxes around objects: the losses of centre points, COCO's average precision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from peftbench.backbones.dense_heads import BOX_CHANNELS
from peftbench.tasks.base import Batch
from peftbench.tasks.detection.average_precision import (
    MOST_DETECTIONS,
    average_precision,
    check_metrics,
    detection_score,
    match,
)
from peftbench.tasks.detection.center_points import center_loss, decode

_AT_ONCE = 16


@dataclass(frozen=True)
class Detection:
    """An objective with a heat map for each class of `classes` and four channels of boxes.

    Labels are (examples, boxes, 6): class (-1: there is no box), x and y of the centre, width, height in shares of
    the picture, and whether it is a crowd.
    """

    form: ClassVar[str] = "boxes"

    classes: tuple[str, ...]

    @property
    def num_outputs(self) -> int:
        """One for each class's heat map, and the boxes' channels."""
        return len(self.classes) + BOX_CHANNELS

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Return the focal loss and the L1 loss of a batch, each per object."""
        return center_loss(outputs.logits, batch["labels"])

    def describe(self, labels: Sequence[Any]) -> str:
        """Return how many boxes each class has."""
        kinds = np.asarray(labels)[..., 0].astype(np.int64)
        counts = np.bincount(kinds[kinds >= 0], minlength=len(self.classes))
        return ", ".join(f"{name} {count:,}" for name, count in zip(self.classes, counts, strict=True)) + " boxes"

    def read_out(self, logits: torch.Tensor) -> tuple[np.ndarray, None]:
        """Return each picture's detections, the surest first, (examples, detections, 6).

        Fields: class, score, x and y of the centre, width, height in shares of the picture.
        """
        return np.concatenate([decode(part, MOST_DETECTIONS).numpy() for part in logits.split(_AT_ONCE)]), None

    def by_class(self, predictions: np.ndarray, labels: Sequence[Any]) -> dict[str, Any]:
        """Return the classes' names, and the AP and AP50 of each; None for one without objects."""
        precision = average_precision(match(np.asarray(labels), predictions, len(self.classes)))[0]
        mean, at_half = precision.mean(-1), precision[:, 0]
        return {
            "names": list(self.classes),
            "ap": [None if np.isnan(value) else float(value) for value in mean],
            "ap50": [None if np.isnan(value) else float(value) for value in at_half],
        }

    def score(self, metrics: Sequence[str], logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return the metrics of a split, and the mean loss of its parts."""
        check_metrics(metrics)
        precision = average_precision(match(labels.numpy(), self.read_out(logits)[0], len(self.classes)))
        parts = zip(logits.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True)
        losses = [center_loss(*part).item() * len(part[0]) for part in parts]
        scores = {metric: float(detection_score(metric, precision)[0]) for metric in metrics}
        return {**scores, "loss": sum(losses) / len(logits)}

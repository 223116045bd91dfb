"""A score for each example: squared error, correlations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from peftbench.tasks.base import Batch
from peftbench.tasks.metrics import score


@dataclass(frozen=True)
class Regression:
    """An objective with one output, the score itself; labels are floats."""

    form: ClassVar[str] = "one"

    num_outputs: int = 1

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Return the mean squared error of a batch."""
        return F.mse_loss(outputs.logits.float().squeeze(-1), batch["labels"])

    def describe(self, labels: Sequence[float]) -> str:
        """Return the range of the scores and their mean."""
        return f"scores {min(labels):g} to {max(labels):g}, mean {np.mean(labels):.3g}"

    def by_class(self, predictions: np.ndarray, labels: Sequence[float]) -> None:
        """Return nothing: there are no classes."""

    def read_out(self, logits: torch.Tensor) -> tuple[np.ndarray, None]:
        """Return the scores, (examples,)."""
        return logits.squeeze(-1).numpy(), None

    def score(self, metrics: Sequence[str], logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return the metrics and the loss of a split."""
        predictions, _ = self.read_out(logits)
        loss = F.mse_loss(logits.squeeze(-1), labels.float())
        return {**score(metrics, predictions, labels.numpy(), num_classes=0), "loss": loss.item()}

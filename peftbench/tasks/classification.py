"""One class for each example: cross-entropy, probabilities, class metrics."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from peftbench.tasks.base import Batch
from peftbench.tasks.metrics import class_f1, confusion_matrix, score

_CLASSES_SHOWN = 8
_CLASSES_IN_MATRIX = 50
_MISSING_SHOWN = 5


@dataclass(frozen=True)
class Classification:
    """An objective with an output for each class of `classes`; labels are class indices, int64."""

    form: ClassVar[str] = "one"

    classes: tuple[str, ...]

    @property
    def num_outputs(self) -> int:
        """One for each class."""
        return len(self.classes)

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of a batch."""
        return F.cross_entropy(outputs.logits.float(), batch["labels"])

    def describe(self, labels: Sequence[int]) -> str:
        """Return how many examples each class has, the most frequent ones where there are many."""
        counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=self.num_outputs)
        shown = range(self.num_outputs)
        if self.num_outputs > _CLASSES_SHOWN:
            shown = np.argsort(-counts, kind="stable")[: _CLASSES_SHOWN - 1].tolist()
        named = [f"{self.classes[index]} {counts[index]:,}" for index in shown]
        others = self.num_outputs - len(named)
        return ", ".join([*named, *([f"{others:,} classes more"] if others else [])])

    def read_out(self, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the most probable class, (examples,), and the probabilities, (examples, classes)."""
        return logits.argmax(-1).numpy(), logits.softmax(-1).numpy()

    def by_class(self, predictions: np.ndarray, labels: Sequence[int]) -> dict[str, Any]:
        """Return the classes' names, the F1 of each, and the confusion matrix (true class by row) of a split.

        The matrix is None where there are more than 50 classes.
        """
        confusion = confusion_matrix(predictions, np.asarray(labels), self.num_outputs)
        return {
            "names": list(self.classes),
            "f1": class_f1(confusion).tolist(),
            "confusion": confusion.tolist() if self.num_outputs <= _CLASSES_IN_MATRIX else None,
        }

    def score(self, metrics: Sequence[str], logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return the metrics and the loss of a split."""
        predictions, probabilities = self.read_out(logits)
        values = score(metrics, predictions, labels.numpy(), self.num_outputs, probabilities)
        return {**values, "loss": F.cross_entropy(logits, labels).item()}


def untrained_classes(classes: Sequence[str], splits: Mapping[str, Any], unit: str) -> list[str]:
    """Return a line that names the classes, the first of many, of which no example is trained on; none without any.

    Args:
        classes: their names; none where labels are scores. splits: by name, with `labels`. unit: what an example is.
    """
    labels = splits["train"].labels if "train" in splits else None
    return [] if labels is None else untrained(classes, {*labels}, unit)


def untrained(classes: Sequence[str], found: Container[int], unit: str) -> list[str]:
    """Return the line of `untrained_classes` for the numbers of the classes that were found."""
    missing = [name for index, name in enumerate(classes) if index not in found]
    more = " …" if len(missing) > _MISSING_SHOWN else ""
    return [f"no training {unit} is of class {', '.join(missing[:_MISSING_SHOWN])}{more}"] if missing else []

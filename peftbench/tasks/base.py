"""What a task is: splits of data, how examples become batches, and what a model's outputs are trained towards.

A task is its data (`Task`, one subclass a kind of input) and its objective (`Objective`, one class a kind of
answer). The trainer and the measurements know these two alone, never which kind they are; what is made of an answer
behind them goes by its `Objective.form`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from peftbench.backbones.sites import Sites

# the model's inputs by name, and the targets under "labels" where they are known
Batch = dict[str, torch.Tensor]

# batches are cut from sorted stretches of this many batches, so that they differ from epoch to epoch
_STRETCH = 25


class Objective(Protocol):
    """What is learned: the width of the logits, the loss, and what the head's outputs say.

    `form` is what an example's answer is, see `runs.predictions`: one class or score, pixels, or boxes.
    """

    form: ClassVar[str]

    @property
    def num_outputs(self) -> int:
        """Width of the logits, with which the head is built: `Method.put_head`, or of dense tasks `add_dense_head`."""

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar; `outputs` is what the model returned, with `.logits`."""

    def describe(self, labels: Sequence[Any]) -> str:
        """Return a split's labels in words, such as how many examples each class has."""

    def read_out(self, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what logits (examples, outputs) say of each example: predictions, and probabilities or None."""

    def by_class(self, predictions: np.ndarray, labels: Sequence[Any]) -> dict[str, Any] | None:
        """Return scores class by class, by name, in plain values for the record; None without classes."""

    def score(self, metrics: Sequence[str], logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Return by name the metrics (0 … 1, or -1 … 1) and the loss of a split, of its logits and labels."""


class Split(Protocol):
    """Examples as they were read; `labels` is None where they are hidden."""

    @property
    def labels(self) -> Sequence[Any] | None:
        """One for each example."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def content(self, name: str) -> Iterable[bytes]:
        """Yield the split's name and all that its examples hold, for a digest."""


class Examples(ABC):
    """A split as the model reads it, from which batches are made; `labels` (examples,) or None."""

    labels: torch.Tensor | None

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """What each example costs, (examples,), such as its number of tokens: like sizes share a batch."""

    @abstractmethod
    def batch(self, indices: Sequence[int], multiple: int = 1) -> Batch:
        """Return these examples as one batch; sequences are padded up to a multiple of so many positions."""

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> "Examples":
        """Return these examples alone, in this order."""

    def augmented(self, seed: int, epoch: int) -> "Examples":
        """Return the examples as an epoch of training sees them, the same for the same seed and epoch."""
        return self

    def timed_sizes(self, lengths: Sequence[int]) -> list[int | tuple[int, int]]:
        """Return at which sizes of an example the model is timed: `lengths` tokens, or an image's height and width."""
        return list(lengths)

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.sizes)

    def in_order(self, size: int) -> list[list[int]]:
        """Return the indices of each batch over the whole split, the largest examples first."""
        order = np.argsort(-self.sizes, kind="stable").tolist()
        return [order[start : start + size] for start in range(0, len(order), size)]

    def shuffled(self, size: int, seed: int, epoch: int) -> list[list[int]]:
        """Return the indices of each batch of one epoch, the same for the same seed and epoch."""
        random = np.random.default_rng((seed, epoch))
        order, sizes = random.permutation(len(self)), self.sizes
        batches: list[list[int]] = []
        for start in range(0, len(order), size * _STRETCH):
            stretch = order[start : start + size * _STRETCH]
            stretch = stretch[np.argsort(-sizes[stretch], kind="stable")]
            batches += [stretch[i : i + size].tolist() for i in range(0, len(stretch), size)]
        return [batches[i] for i in random.permutation(len(batches))]


@dataclass(frozen=True)
class Given:
    """Examples to be answered.

    Attributes:
        split: those that can be. filled: their numbers among all that were given, of which there are `count`.
    """

    split: Any
    filled: Sequence[int]
    count: int


@dataclass(frozen=True)
class Task(ABC):
    """A data set in memory, and what is to be learned from it.

    Attributes:
        name: as the config group calls it.
        objective: what is learned.
        labels: class names by index, empty where the labels are scores.
        metrics: names, the primary one first.
        splits: by name; empty where only the form of the task is needed.
        source: where the data comes from, in words.
        columns: what an example consists of, by name.
    """

    name: str
    objective: Objective
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    splits: Mapping[str, Any]
    source: str
    columns: tuple[str, ...]

    @abstractmethod
    def encode(self, split: Any, sites: Sites) -> Examples:
        """Prepare a split for the model that the sites are of, with its tokenizer or image processor."""

    def encode_split(self, name: str, sites: Sites) -> Examples:
        """Prepare the split `name`; a task may keep what that gives."""
        return self.encode(self.splits[name], sites)

    @property
    def settings_from_data(self) -> dict[str, Any]:
        """Settings, by name, that the config left to the data: a model that meets other data later needs them."""
        return {}

    def answers_in_given_size(self, split: Any, answers: np.ndarray) -> list[Any]:
        """Return the answers, one an example, in the size that examples were given in: the model's may be another.

        Args:
            split: the examples. answers: (examples, …), as `Objective.read_out` returns them.
        """
        return list(answers)

    def render_example(self, split: Any, index: int, answer: Any) -> tuple[Any, Any] | None:
        """Return example `index` of a split as two of PIL's images, with what is true and with the model's answer.

        None where examples are no pictures.
        """
        return None

    def processor(self, sites: Sites) -> Any:
        """Return a backbone's tokenizer or image processor, set to prepare examples as this task does."""
        return sites.processor

    def write_examples(self, split: str, folder: Path) -> dict[str, Any] | None:
        """Write a split's examples for a program that knows other libraries alone, and return what it is told of them.

        None where other libraries have no model that answers such examples.
        """
        return None

    @abstractmethod
    def read_examples(self, given: Any) -> Given:
        """Return examples to be answered, as a user gives them; raises UserError where they are something else."""

    @abstractmethod
    def check_model(self, sites: Sites, model: str) -> None:
        """Raise UserError where a backbone cannot read the examples.

        Args:
            sites: of the backbone. model: its name, for the line.
        """

    @abstractmethod
    def warnings(self, encoded: Mapping[str, Any]) -> list[str]:
        """Return what the user should know of the data before it is trained on, a line each.

        Args:
            encoded: the splits as `encode` gave them. Raises UserError where nothing can be learned from them.
        """

    @cached_property
    def checksums(self) -> dict[str, str]:
        """16 hexadecimal digits of the examples and labels of each split."""
        return {name: _digest([(name, split)]) for name, split in self.splits.items()}

    @cached_property
    def checksum(self) -> str:
        """16 hexadecimal digits of all examples and labels: tells whether two sources hold the same data."""
        return _digest(sorted(self.splits.items()))


def as_tensor(labels: Sequence[int] | Sequence[float] | None) -> torch.Tensor | None:
    """Return labels as a model takes them: int64 classes, float32 scores, None where they are hidden."""
    return None if labels is None else torch.tensor(labels)


def _digest(splits: Iterable[tuple[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name, split in splits:
        for part in split.content(name):
            digest.update(part)
    return digest.hexdigest()[:16]

"""A task whose examples are texts: tokenized by the backbone's tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftbench.tasks.base import Task
from peftbench.tasks.text.batching import EncodedTexts, encode


@dataclass(frozen=True)
class TextSplit:
    """Examples: one or two texts each; `labels` are class indices or scores, None where they are hidden."""

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[int] | Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def content(self) -> list[Any]:
        """Return texts and labels."""
        return [self.texts, self.labels]


@dataclass(frozen=True)
class TextTask(Task):
    """Texts or pairs of texts, cut to `max_length` tokens."""

    max_length: int

    def encode(self, split: TextSplit, processor: Any) -> EncodedTexts:
        """Tokenize a split; `processor` is the backbone's tokenizer."""
        return encode(split.texts, split.labels, processor, self.max_length)

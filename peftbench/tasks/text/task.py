"""A task whose examples are texts: tokenized by the backbone's tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftbench.tasks.base import Task
from peftbench.tasks.text.batching import EncodedTexts, encode
from peftbench.tasks.text.checks import text_warnings


@dataclass(frozen=True)
class TextSplit:
    """Examples: one or two texts each; `labels` are class indices or scores, None where they are hidden."""

    texts: Sequence[tuple[str, ...]]
    labels: Sequence[int] | Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, rows: Sequence[int]) -> "TextSplit":
        """Return these examples alone, in this order."""
        labels: Any = None if self.labels is None else [self.labels[row] for row in rows]
        return TextSplit([self.texts[row] for row in rows], labels)

    def content(self) -> list[Any]:
        """Return texts and labels."""
        return [self.texts, self.labels]


@dataclass(frozen=True)
class TextTask(Task):
    """Texts or pairs of texts, cut to `max_length` tokens; `faults` is what the user should know of the files."""

    max_length: int
    faults: tuple[str, ...] = ()

    def encode(self, split: TextSplit, processor: Any) -> EncodedTexts:
        """Tokenize a split; `processor` is the backbone's tokenizer."""
        return encode(split.texts, split.labels, processor, self.max_length)

    def warnings(self, encoded: Mapping[str, Any]) -> list[str]:
        """Return what the user should know of the data; UserError where the tokenizer cannot read it."""
        return [*self.faults, *text_warnings(self.splits, encoded, len(self.labels), self.max_length)]

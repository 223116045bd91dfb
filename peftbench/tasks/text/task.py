"""A task whose examples are texts: tokenized by the backbone's tokenizer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.tasks.base import Given, Task, as_tensor
from peftbench.tasks.classification import untrained_classes
from peftbench.tasks.text.batching import EncodedTexts, encode
from peftbench.tasks.text.cache import LEAST_ROWS, cached
from peftbench.tasks.text.checks import text_warnings
from peftbench.tasks.text.examples import read_examples

_AT_ONCE = 1000


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

    def content(self, name: str) -> Iterator[bytes]:
        """Yield the JSON of [name, texts, labels], piece by piece: in one it would be as large as the data again."""
        yield f"[{json.dumps(name)}, [".encode()
        for start in range(0, len(self.texts), _AT_ONCE):
            comma = ", " if start else ""
            yield (comma + json.dumps(self.texts[start : start + _AT_ONCE])[1:-1]).encode()
        yield f"], {json.dumps(self.labels)}]".encode()


@dataclass(frozen=True)
class TextTask(Task):
    """Texts or pairs of texts, cut to `max_length` tokens; `faults` is what the user should know of the files."""

    max_length: int
    faults: tuple[str, ...] = ()

    def encode(self, split: TextSplit, sites: Sites) -> EncodedTexts:
        """Tokenize a split."""
        return encode(split.texts, split.labels, sites.processor, self.max_length)

    def encode_split(self, name: str, sites: Sites) -> EncodedTexts:
        """Tokenize a split, or find its tokens in the cache folder."""
        split = self.splits[name]
        if len(split) < LEAST_ROWS:
            return self.encode(split, sites)
        return cached(
            lambda: self.encode(split, sites),
            self.checksums[name],
            as_tensor(split.labels),
            sites.processor,
            self.max_length,
        )

    def write_examples(self, split: str, folder: Path) -> dict[str, Any]:
        """Return the texts, and where they are cut."""
        return {"texts": self.splits[split].texts, "max_length": self.max_length}

    def read_examples(self, given: Any) -> Given:
        """Return texts, or pairs, without the white space around them; one with an empty text is not answered."""
        examples = read_examples(given, self.columns)
        filled = [number for number, example in enumerate(examples) if all(example)]
        return Given(TextSplit([examples[number] for number in filled]), filled, len(examples))

    def check_model(self, sites: Sites, model: str) -> None:
        """Raise UserError where the backbone reads no texts."""
        check_reads_texts(sites, self.name, model)

    def warnings(self, encoded: Mapping[str, Any]) -> list[str]:
        """Return what the user should know of the data; UserError where the tokenizer cannot read it."""
        found = text_warnings(self.splits, encoded, self.labels, self.max_length)
        return [*self.faults, *found, *untrained_classes(self.labels, self.splits, "row")]


def check_reads_texts(sites: Sites, task: str, model: str) -> None:
    """Raise UserError where a backbone reads no texts; task, model: the names, for the line."""
    if sites.image is not None:
        raise UserError(f"task={task} has texts, and model={model} reads images: choose another task or model")

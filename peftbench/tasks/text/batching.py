"""Token ids of a split, and batches of rows of like length, padded to their longest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Batch = dict[str, torch.Tensor]

# batches are cut from sorted stretches of this many batches, so that they differ from epoch to epoch
_STRETCH = 25
# tokenizers keep what they cut off, too, until a call's result is dropped
_AT_ONCE = 500


@dataclass(frozen=True)
class Encoded:
    """A tokenized split: one list of columns (input_ids, token_type_ids …) a row, and the labels."""

    rows: list[dict[str, list[int]]]
    labels: torch.Tensor | None
    padding: dict[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row."""
        return np.array([len(row["input_ids"]) for row in self.rows])

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return these rows, each column (batch, longest); no attention mask where nothing is padded."""
        rows = [self.rows[i] for i in indices]
        lengths = [len(row["input_ids"]) for row in rows]
        longest = max(lengths)
        batch = {
            name: torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])
            for name, fill in self.padding.items()
        }
        if min(lengths) < longest:
            batch["attention_mask"] = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
        if self.labels is not None:
            batch["labels"] = self.labels[list(indices)]
        return batch

    def in_order(self, size: int) -> Iterator[tuple[list[int], Batch]]:
        """Yield (row indices, batch) over the whole split, longest rows first."""
        order = np.argsort(-self.lengths, kind="stable").tolist()
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            yield indices, self.batch(indices)

    def shuffled(self, size: int, seed: int, epoch: int) -> list[list[int]]:
        """Return the row indices of each batch of one epoch, the same for the same seed and epoch."""
        random = np.random.default_rng((seed, epoch))
        order, lengths = random.permutation(len(self)), self.lengths
        batches: list[list[int]] = []
        for start in range(0, len(order), size * _STRETCH):
            stretch = order[start : start + size * _STRETCH]
            stretch = stretch[np.argsort(-lengths[stretch], kind="stable")]
            batches += [stretch[i : i + size].tolist() for i in range(0, len(stretch), size)]
        return [batches[i] for i in random.permutation(len(batches))]


def encode(
    texts: Sequence[tuple[str, ...]],
    labels: Sequence[int] | Sequence[float] | None,
    tokenizer: Any,
    max_length: int,
) -> Encoded:
    """Tokenize texts (pairs or single ones), cut to `max_length` tokens; labels: ints are classes, floats scores."""
    padding = {"input_ids": tokenizer.pad_token_id}
    if "token_type_ids" in tokenizer.model_input_names:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    rows: list[dict[str, list[int]]] = []
    for start in range(0, len(texts), _AT_ONCE):
        columns = zip(*texts[start : start + _AT_ONCE], strict=True)
        encoded = tokenizer(*map(list, columns), truncation=True, max_length=max_length)
        rows += [dict(zip(padding, row, strict=True)) for row in zip(*(encoded[n] for n in padding), strict=True)]
    return Encoded(rows, None if labels is None else torch.tensor(labels), padding)

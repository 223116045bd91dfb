"""Token ids of a split, and batches of rows padded to their longest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from peftbench.tasks.base import Batch, Examples, as_tensor

# tokenizers keep what they cut off, too, until a call's result is dropped
_AT_ONCE = 500


@dataclass(frozen=True)
class EncodedTexts(Examples):
    """A tokenized split: the rows of each column (input_ids, token_type_ids …) one behind the other.

    Attributes:
        columns: (tokens,) int32 by name.
        offsets: (rows + 1,) int64; row i is tokens offsets[i] to offsets[i + 1] of each column.
        labels: (rows,), or None where they are hidden.
        padding: what fills each column behind a row's end.
        truncated: number of rows that were cut short.
        unknown: share of the tokens that the tokenizer does not know, special tokens left out.
        most: tokens that rows are padded to at most; None: those of the longest row.
    """

    columns: Mapping[str, np.ndarray]
    offsets: np.ndarray
    labels: torch.Tensor | None
    padding: Mapping[str, int]
    truncated: int = 0
    unknown: float = 0.0
    most: int | None = None

    @property
    def sizes(self) -> np.ndarray:
        """Number of tokens of each row."""
        return np.diff(self.offsets)

    @cached_property
    def longest(self) -> int:
        """Number of tokens of the longest row."""
        return int(self.sizes.max())

    def batch(self, indices: Sequence[int], multiple: int = 1) -> Batch:
        """Return these rows, each column (batch, longest); no attention mask where nothing is padded.

        The longest is rounded up to a multiple, though not beyond `most`.
        """
        starts, ends = self.offsets[list(indices)], self.offsets[[i + 1 for i in indices]]
        lengths = ends - starts
        longest = rounded_up(int(lengths.max()), multiple, self.longest if self.most is None else self.most)
        batch = {}
        for name, fill in self.padding.items():
            padded = np.full((len(indices), longest), fill, dtype=np.int64)
            for row, start, end in zip(padded, starts, ends, strict=True):
                row[: end - start] = self.columns[name][start:end]
            batch[name] = torch.from_numpy(padded)
        if lengths.min() < longest:
            batch["attention_mask"] = torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))
        if self.labels is not None:
            batch["labels"] = self.labels[list(indices)]
        return batch

    def subset(self, indices: Sequence[int]) -> "EncodedTexts":
        """Return these rows alone, in this order."""
        places = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices])
        columns = {name: column[places] for name, column in self.columns.items()}
        labels = None if self.labels is None else self.labels[list(indices)]
        return replace(self, columns=columns, offsets=_offsets(self.sizes[list(indices)]), labels=labels)


def rounded_up(length: int, multiple: int, most: int) -> int:
    """Return the multiple that a length is padded up to, at most `most`."""
    return min(-(-length // multiple) * multiple, most)


def encode(
    texts: Sequence[tuple[str, ...]],
    labels: Sequence[int] | Sequence[float] | None,
    tokenizer: Any,
    max_length: int,
) -> EncodedTexts:
    """Tokenize texts (pairs or single ones), cut to `max_length` tokens; labels: ints are classes, floats scores."""
    padding = {"input_ids": tokenizer.pad_token_id}
    if "token_type_ids" in tokenizer.model_input_names:
        padding["token_type_ids"] = tokenizer.pad_token_type_id
    parts: dict[str, list[np.ndarray]] = {name: [np.empty(0, np.int32)] for name in padding}
    lengths: list[int] = []
    truncated = 0
    for start in range(0, len(texts), _AT_ONCE):
        columns = zip(*texts[start : start + _AT_ONCE], strict=True)
        encoded = tokenizer(*map(list, columns), truncation=True, max_length=max_length)
        lengths += map(len, encoded["input_ids"])
        truncated += sum(bool(row.overflowing) for row in getattr(encoded, "encodings", None) or ())
        for name, part in parts.items():
            part.append(np.concatenate([np.asarray(row, np.int32) for row in encoded[name]]))
    joined = {name: np.concatenate(part) for name, part in parts.items()}
    return EncodedTexts(
        columns=joined,
        offsets=_offsets(lengths),
        labels=as_tensor(labels),
        padding=padding,
        truncated=truncated,
        unknown=_unknown_share(joined["input_ids"], tokenizer),
    )


def joined(parts: Sequence[EncodedTexts], most: int) -> EncodedTexts:
    """Return the rows of several splits, of one tokenizer and without labels, one behind the other."""
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].padding}
    offsets = _offsets(np.concatenate([part.sizes for part in parts]))
    return EncodedTexts(columns, offsets, None, parts[0].padding, most=most)


def _unknown_share(ids: np.ndarray, tokenizer: Any) -> float:
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return 0.0
    special = [token for token in tokenizer.all_special_ids if token != unknown]
    tokens = int((~np.isin(ids, special)).sum())
    return int((ids == unknown).sum()) / max(1, tokens)


def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

"""What of a text task is worth a word before it is trained on: a list of warnings, or a refusal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from peftbench.errors import UserError

if TYPE_CHECKING:
    from peftbench.tasks.text.batching import EncodedTexts
    from peftbench.tasks.text.task import TextSplit

_MOST_UNKNOWN = 0.5  # of the tokens of a split
_FEW_ROWS_A_CLASS = 2


def text_warnings(
    splits: Mapping[str, "TextSplit"], encoded: Mapping[str, "EncodedTexts"], classes: Sequence[str], max_length: int
) -> list[str]:
    """Return a line for each thing that makes scores mean less than they seem.

    Args:
        splits: as read. encoded: the same, tokenized.
        classes: their names, none for scores.
        max_length: tokens that texts were cut to.

    Raises UserError where the tokenizer does not know most of a split's tokens.
    """
    for name, part in encoded.items():
        if part.unknown > _MOST_UNKNOWN:
            raise UserError(
                f"{100 * part.unknown:.0f} % of the {name} split's tokens are unknown to the model's tokenizer:"
                " take a model of this language, or correct the model's folder"
            )
    return [
        *_overlaps(splits),
        *_equal_columns(splits),
        *_empty_texts(splits),
        *_alike_classes(classes),
        *_class_a_row(splits, len(classes)),
        *_truncated(encoded, max_length),
    ]


def _overlaps(splits: Mapping[str, "TextSplit"]) -> Iterator[str]:
    if "train" not in splits:
        return
    train = set(splits["train"].texts)
    for name, split in splits.items():
        common = 0 if name == "train" else sum(texts in train for texts in split.texts)
        if common:
            yield f"{common:,} of {len(split):,} {name} rows also occur in the training data (leakage)"


def _equal_columns(splits: Mapping[str, "TextSplit"]) -> Iterator[str]:
    for name, split in splits.items():
        if split.texts and len(split.texts[0]) > 1 and all(first == second for first, second in split.texts):
            yield f"the two text columns are the same in every {name} row"


def _empty_texts(splits: Mapping[str, "TextSplit"]) -> Iterator[str]:
    for name, split in splits.items():
        empty = sum(not all(texts) for texts in split.texts)
        if empty:
            yield f"{empty:,} of {len(split):,} {name} rows have an empty text"


def _alike_classes(classes: Sequence[str]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(_without_writing(name), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            yield f"the classes {' and '.join(map(repr, names))} are written differently, and so are different classes"


def _without_writing(name: str) -> str:
    """Return what capitals, spaces and ways to write a number leave of a class's name."""
    plain = "".join(name.casefold().split())
    try:
        return str(float(plain))
    except ValueError:
        return plain


def _class_a_row(splits: Mapping[str, "TextSplit"], classes: int) -> Iterator[str]:
    train = splits.get("train")
    if train is None or train.labels is None or not classes:
        return
    found = len(Counter(train.labels))
    if found > 2 and found * _FEW_ROWS_A_CLASS > len(train):
        yield (
            f"{found:,} classes in {len(train):,} training rows: is the label a score (task.metrics=[pearson,spearman])"
            " or an id?"
        )


def _truncated(encoded: Mapping[str, "EncodedTexts"], max_length: int) -> Iterator[str]:
    for name, part in encoded.items():
        if part.truncated:
            yield (f"{part.truncated:,} of {len(part):,} {name} rows are cut to task.max_length={max_length} tokens")

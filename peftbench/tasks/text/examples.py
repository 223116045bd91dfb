"""Texts that are given to be answered, as they may come: strings, or pairs of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peftbench.errors import UserError
from peftbench.files import is_unicode

Example = tuple[str, ...]


def read_examples(given: Any, columns: Sequence[str]) -> list[Example]:
    """Return examples, each with a text for each of a task's columns; UserError for anything else."""
    kind = examples_wanted(columns)
    if isinstance(given, str):
        raise UserError(f"predict takes a list of {kind}, not one string: predict([…])")
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise UserError(f"predict takes a list of {kind}, not {type(given).__name__}")
    examples: list[Example] = []
    for number, item in enumerate(given):
        example = read_example(item, len(columns))
        if example is None:
            raise UserError(f"predict takes a list of {kind}; example {number} is {str(item)[:60]!r}")
        examples.append(example)
    return examples


def examples_wanted(columns: Sequence[str]) -> str:
    """Say what examples a task with these text columns takes."""
    return "texts" if len(columns) == 1 else f"pairs of texts ({', '.join(columns)})"


def read_example(given: Any, width: int) -> Example | None:
    """Return an example's `width` texts without the white space around them; None where it is something else."""
    example = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    texts_alone = all(isinstance(text, str) and is_unicode(text) for text in example)
    return tuple(text.strip() for text in example) if texts_alone and len(example) == width else None

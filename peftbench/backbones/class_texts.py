"""Texts about classes as CLIP's tower of texts reads them: token ids, and places for vectors among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from peftbench.errors import UserError

POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class ClassTexts:
    """Texts, the same number for each class, those of a class one behind the other.

    Attributes:
        classes: how many.
        ids: (texts, tokens), each row filled up with its end token, behind which the tower reads nothing.
        places: (texts, n), at which positions of a row n vectors stand; the ids there say nothing.
    """

    classes: int
    ids: torch.Tensor
    places: torch.Tensor

    @classmethod
    def blank(cls, classes: int, length: int) -> "ClassTexts":
        """Return texts of so many vectors that say nothing, where shapes alone matter."""
        return cls(classes, torch.zeros(classes, length + 2, dtype=torch.long), torch.zeros(classes, length).long())


def fill_templates(tokenizer: Any, templates: Sequence[str], names: Sequence[str], longest: int) -> ClassTexts:
    """Return each template with each class's name in the place of `{class}`.

    Args:
        tokenizer: of the tower. names: of the classes. longest: most tokens that the tower reads.

    Raises UserError for a name that makes a text too long or that the tokenizer does not know.
    """
    rows = []
    for name in names:
        for template in templates:
            start, *tokens, end = _encode(tokenizer, template.replace("{class}", name), name)
            _check_length(name, len(tokens) + 2, longest, "method.templates")
            rows.append([start, *tokens, end])
    return ClassTexts(len(names), _filled(rows), torch.empty(len(rows), 0, dtype=torch.long))


def surround_names(tokenizer: Any, names: Sequence[str], length: int, position: str, longest: int) -> ClassTexts:
    """Return each class's name and a full stop, with `length` places for vectors: one text a class.

    Args:
        tokenizer: of the tower. names: of the classes. longest: most tokens that the tower reads.
        position: of the name, behind the places (end), before them (front), or behind the first half (middle).

    Raises UserError as `fill_templates` does.
    """
    before = {"end": length, "middle": length // 2, "front": 0}[position]
    rows, places = [], []
    for name in names:
        start, *tokens, end = _encode(tokenizer, f"{name}.", name)
        _check_length(name, len(tokens) + length + 2, longest, "method.length")
        # the full stop stands behind all places
        split = len(tokens) if position == "end" else len(_encode(tokenizer, name, name)) - 2
        # the start token is none that the tower could take for the end of the text
        row = [start] * (1 + before) + tokens[:split] + [start] * (length - before) + tokens[split:] + [end]
        rows.append(row)
        second = 1 + before + split
        places.append([*range(1, 1 + before), *range(second, second + length - before)])
    return ClassTexts(len(names), _filled(rows), torch.tensor(places))


def _encode(tokenizer: Any, text: str, name: str) -> list[int]:
    """Return a text's ids from the start token to the end token."""
    ids: list[int] = tokenizer(text)["input_ids"]
    if ids[0] != tokenizer.bos_token_id or ids[-1] != tokenizer.eos_token_id:
        raise UserError(
            "the model's tokenizer puts no start and end token around a text, so it is not CLIP's: save CLIP's own"
            " beside the model"
        )
    if ids.index(tokenizer.eos_token_id) < len(ids) - 1:  # where the tower would stop reading
        raise UserError(f"the class name {name!r} is unknown to the model's tokenizer: set method.class_names")
    return ids


def _check_length(name: str, tokens: int, longest: int, setting: str) -> None:
    if tokens > longest:
        raise UserError(
            f"the text for class {name!r} has {tokens} tokens, and the model reads {longest}: shorten {setting} or"
            " method.class_names"
        )


def _filled(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in rows])


def class_names(labels: Sequence[str], names: Sequence[str] | None, method: str) -> list[str]:
    """Return what a text calls each class: the names given, else the labels, an underscore read as a space.

    Raises UserError where there are no classes, or not as many names.
    """
    if not labels:
        raise UserError(f"method={method} answers with a text for each class, and this task's labels are scores")
    if names is None:
        return [label.replace("_", " ") for label in labels]
    if len(names) != len(labels):
        raise UserError(
            f"method.class_names has {len(names)} names for {len(labels)} classes: one each, for {', '.join(labels)}"
        )
    return list(names)


def check_distinct(names: Sequence[str] | None) -> None:
    """Raise UserError where two classes have the same name."""
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"method.class_names={list(names)}: each class needs a name of its own")

"""Cloze templates: a sentence with places for a task's texts, for the mask and for trained vectors.

`"{text} It was {mask} ."` for one text, `"{text_a} {mask} , {text_b}"` for pairs, `{soft:3}` for three vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from types import SimpleNamespace
from typing import Any

from peftbench.errors import UserError

TEXTS = (("text",), ("text_a", "text_b"))
DEFAULTS = ("{text} It was {mask} .", "{text_a} {mask} , {text_b}")


@dataclass(frozen=True)
class Piece:
    """A part of a template: words as they stand, or a place by its name; `soft` vectors stand in a place of that name.

    `spaced`: whether white space stands before it.
    """

    words: str = ""
    place: str = ""
    soft: int = 0
    spaced: bool = False


def parse_template(template: str, texts: int | None = None) -> list[Piece]:
    """Return a template's pieces in order.

    Args:
        template: with `{mask}` once and each of its texts once.
        texts: how many texts an example has, 1 or 2; None where that does not matter yet.

    Raises UserError for anything else.
    """
    shown = f"method.template={template!r}"
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{shown}: {error}; places are written {{text}}, {{mask}}, {{soft:3}}") from error
    pieces: list[Piece] = []
    before = ""
    for words, place, form, conversion in parts:
        if words.strip():
            pieces.append(Piece(words.strip(), spaced=words[0].isspace() or before.endswith(" ")))
            before = ""
        before = " " if (before + words)[-1:].isspace() else ""
        if place is not None:
            if conversion or (form and place != "soft"):
                raise UserError(f"{shown}: {{{place}}} takes nothing behind its name")
            pieces.append(Piece(place=place, soft=_length(shown, form) if place == "soft" else 0, spaced=bool(before)))
            before = ""
    places = [piece.place for piece in pieces if piece.place]
    wanted = TEXTS if texts is None else (TEXTS[texts - 1],)
    for place in places:
        if place not in ("mask", "soft", *(name for names in wanted for name in names)):
            raise UserError(f"{shown}: there is no {{{place}}} here; {_what(wanted)}")
    for place in ("mask", *next((names for names in wanted if names[0] in places), wanted[0])):
        if places.count(place) != 1:
            times = "no" if place not in places else f"{places.count(place)} times"
            raise UserError(f"{shown} has {times} {{{place}}}: it must stand there once; {_what(wanted)}")
    if texts is None and sum(place in ("text", "text_a") for place in places) > 1:
        raise UserError(f"{shown} mixes {{text}} and {{text_a}}; {_what(wanted)}")
    return pieces


def _length(shown: str, form: str | None) -> int:
    if not (form or "").isdecimal() or int(form or 0) < 1:
        raise UserError(f"{shown}: {{soft:{form}}} must say how many vectors stand there, e.g. {{soft:3}}")
    return int(form or 0)


def _what(wanted: Sequence[tuple[str, ...]]) -> str:
    return f"an example: {' or '.join(repr(DEFAULTS[len(names) - 1]) for names in wanted)}"


class TemplateTokenizer:
    """A tokenizer that fills its texts into a template: what a task encodes with, in place of the backbone's own.

    The texts are cut where a row would be too long, never the template. The k-th trained vector stands in a row as
    the id -k, counted from 1.

    Attributes:
        inner: the backbone's tokenizer. pieces: of the template.
    """

    def __init__(self, inner: Any, pieces: Sequence[Piece]) -> None:
        if inner.mask_token_id is None:
            raise UserError(
                "method.template has a mask and the model's tokenizer no mask token: it was not pretrained to fill one"
            )
        self.inner, self.pieces = inner, pieces
        probe, bare = inner("a")["input_ids"], inner("a", add_special_tokens=False)["input_ids"]
        start = next(i for i in range(len(probe)) if probe[i : i + len(bare)] == bare)
        self._first, self._last = probe[:start], probe[start + len(bare) :]
        self._fixed: list[list[int]] = []
        soft = 0
        for piece in pieces:
            if piece.words:
                self._fixed.append(self.ids([piece.words], piece.spaced)[0])
            elif piece.place == "mask":
                self._fixed.append([inner.mask_token_id])
            else:
                self._fixed.append([-soft - k for k in range(1, piece.soft + 1)])
                soft += piece.soft

    def __getattr__(self, name: str) -> Any:
        """Be the backbone's tokenizer in all that the template does not change."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def ids(self, texts: Sequence[str], spaced: bool) -> list[list[int]]:
        """Return the token ids of each text, without special tokens; `spaced`: as behind white space."""
        found: list[list[int]] = self.inner(
            [f" {text}" if spaced and text else text for text in texts], add_special_tokens=False
        )["input_ids"]
        return found

    def _text_ids(self, texts: Sequence[str], spaced: bool) -> list[list[int]]:
        """Return the ids of a task's texts, in which a mask that is written out is no mask."""
        mask, unknown = self.inner.mask_token_id, self.inner.unk_token_id
        instead = [] if unknown is None else [unknown]
        return [
            [token for found in row for token in (instead if found == mask else [found])]
            for row in self.ids(texts, spaced)
        ]

    def __call__(self, *columns: list[str], max_length: int, truncation: bool = True) -> Any:
        """Return the columns of the filled rows, cut to `max_length` tokens.

        Args:
            columns: the first, and for pairs the second text of each row.
            max_length: tokens of a whole row.
        """
        names = TEXTS[len(columns) - 1]
        spaced = {piece.place: piece.spaced for piece in self.pieces}
        encoded = [self._text_ids(column, spaced[name]) for name, column in zip(names, columns, strict=True)]
        room = max_length - len(self._first) - len(self._last) - sum(map(len, self._fixed))
        if room < len(columns):
            raise UserError(f"task.max_length={max_length} leaves no room for a text in method.template: raise it")
        rows, cut = [], []
        for texts in zip(*encoded, strict=True):
            kept = _cut(texts, room)
            cut.append(SimpleNamespace(overflowing=sum(map(len, kept)) < sum(map(len, texts))))
            by_place = dict(zip(names, kept, strict=True))
            row = list(self._first)
            for piece, fixed in zip(self.pieces, self._fixed, strict=True):
                row += by_place.get(piece.place, fixed)
            rows.append(row + self._last)
        return _Encoded(rows, cut)


class _Encoded(dict[str, list[list[int]]]):
    """Columns by name, and as `encodings` what was cut, like those of transformers."""

    def __init__(self, rows: list[list[int]], encodings: list[SimpleNamespace]) -> None:
        super().__init__(input_ids=rows, token_type_ids=[[0] * len(row) for row in rows])
        self.encodings = encodings


def _cut(texts: Sequence[list[int]], room: int) -> list[list[int]]:
    """Return the texts' first tokens, `room` together, the longest text cut first."""
    if len(texts) == 1:
        return [texts[0][:room]]
    first, second = map(len, texts)
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return [texts[0][:first], texts[1][:second]]

"""Rows that cannot be told apart, as letters: two rows share one exactly where they cannot (compact letter display)."""

from collections.abc import Iterator, Sequence
from itertools import count, product
from string import ascii_lowercase

from peftbench.tables.table import Pair
from peftbench.tables.verdicts import BETTER, LOWER


def tie_groups(ranked: Sequence[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Return each row's letters: one for every maximal set of rows, no two of which are told apart (Piepho 2004).

    Args:
        ranked: labels of rows, the highest score first: its sets get the first letters.
        pairs: with intervals; rows of none get no letters.
    """
    compared = [
        label for label in ranked if any(label in (pair.row, pair.other) for pair in pairs if _has_interval(pair))
    ]
    ties: dict[str, set[str]] = {label: set() for label in compared}
    for pair in pairs:
        if _has_interval(pair) and pair.verdict not in (BETTER, LOWER):
            ties[pair.row].add(pair.other)
            ties[pair.other].add(pair.row)
    places = {label: place for place, label in enumerate(compared)}
    sets = sorted(sorted(places[label] for label in found) for found in _maximal(set(), set(compared), set(), ties))
    letters = dict.fromkeys(compared, "")
    for name, found in zip(_names(), sets, strict=False):
        for place in found:
            letters[compared[place]] += name
    return letters


def _has_interval(pair: Pair) -> bool:
    return pair.low is not None


def _maximal(chosen: set[str], left: set[str], done: set[str], ties: dict[str, set[str]]) -> list[set[str]]:
    """Return the maximal sets of tied rows that hold `chosen` (Bron & Kerbosch 1973, with a pivot)."""
    if not left and not done:
        return [chosen] if chosen else []
    pivot = max(left | done, key=lambda label: len(ties[label] & left))
    found = []
    for label in left - ties[pivot]:
        found += _maximal(chosen | {label}, left & ties[label], done & ties[label], ties)
        left, done = left - {label}, done | {label}
    return found


def _names() -> Iterator[str]:
    """Yield a … z, aa … zz and so on."""
    for length in count(1):
        for letters in product(ascii_lowercase, repeat=length):
            yield "".join(letters)

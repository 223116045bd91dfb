"""Rows that cannot be told apart, as letters: two rows share one exactly where they cannot (compact letter display)."""

from collections.abc import Iterator, Sequence
from string import ascii_letters

from peftbench.tables.table import Pair
from peftbench.tables.verdicts import BETTER, LOWER

# a … z, A … Z: there may be as many as 3^(rows / 3) sets, and so many tell a reader nothing
MOST_SETS = len(ascii_letters)
# rows looked at while they are searched for: a second or two
_MOST_WORK = 2_000_000


def tie_groups(ranked: Sequence[str], pairs: Sequence[Pair]) -> dict[str, str]:
    """Return each row's letters: one for every maximal set of rows, no two of which are told apart (Piepho 2004).

    None for any row where there are more than `MOST_SETS` such sets, or they take too long to find.

    Args:
        ranked: labels of rows, the highest score first: its sets get the first letters.
        pairs: with intervals; rows of none get no letters.
    """
    known = [pair for pair in pairs if _has_interval(pair)]
    labels = {label for pair in known for label in (pair.row, pair.other)}
    compared = [label for label in ranked if label in labels]
    places = {label: place for place, label in enumerate(compared)}
    ties = [0] * len(compared)
    for pair in known:
        if pair.verdict not in (BETTER, LOWER):
            ties[places[pair.row]] |= 1 << places[pair.other]
            ties[places[pair.other]] |= 1 << places[pair.row]
    sets = sorted(list(_places(found)) for found in _maximal(ties) or [])
    letters = dict.fromkeys(compared, "")
    for letter, found in zip(ascii_letters, sets, strict=False):
        for place in found:
            letters[compared[place]] += letter
    return letters


def _has_interval(pair: Pair) -> bool:
    return pair.low is not None


def _maximal(ties: Sequence[int]) -> list[int] | None:
    """Return the maximal sets of tied rows (Bron & Kerbosch 1973, with a pivot), None where they are too many.

    Sets are whole numbers with a bit for each row in them; `ties` are those that each row is tied with.
    """
    found, work = [], 0
    # rows that are chosen; that are tied with all of these and left to choose; that are likewise, but done with
    open_branches = [(0, (1 << len(ties)) - 1, 0)]
    while open_branches:
        chosen, left, done = open_branches.pop()
        if not left | done and chosen:
            found.append(chosen)
        work += (left | done).bit_count()
        if len(found) > MOST_SETS or work > _MOST_WORK:
            return None
        if left:
            pivot = max(_places(left | done), key=lambda place: (ties[place] & left).bit_count())
            for place in _places(left & ~ties[pivot]):
                row = 1 << place
                open_branches.append((chosen | row, left & ties[place], done & ties[place]))
                left, done = left & ~row, done | row
    return found


def _places(rows: int) -> Iterator[int]:
    """Yield the places of the rows in a set, from the first on."""
    while rows:
        first = rows & -rows
        yield first.bit_length() - 1
        rows ^= first

"""Adding seeds until a table is decided: looking at it again and again, and erring no more often than with one look.

Each look may err in its own part of α (alpha-spending: Lan & DeMets 1983, linear in the seeds as Kim & DeMets 1987 with
ρ = 1): a look behind s of at most S seeds in α (s − s of the look before) / S of the cases, for all comparisons made at
it together. By the union bound all looks together err in at most α, whatever they have in common, whichever rows get
more seeds, and wherever one stops. Looks come behind 3 seeds, and each next one behind half as many again.

Compared are the rows with the baseline and with the highest row. What is told at a look stays told. A row gets more
seeds as long as one of its comparisons is open: neither told, nor such that no number of seeds could tell it on these
examples (stopping for futility makes errors fewer). Nothing but the scores decides, so that stopping and going on
another day gives what one sitting gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from peftbench.tables.table import Pair

FIRST_LOOK = 3
_GROWTH = 1.5
# the share of tables in which any verdict of any look may be wrong
_ALPHA = 0.05


@dataclass(frozen=True)
class Course:
    """How far a table has come.

    Attributes:
        seeds: how many each row is to have now; a row that lacks some of them is waited for.
        pairs: every comparison as it was told, or else as it was seen last.
        open: those with the baseline or the highest row that are to be told yet. futile: those that are not told, and
            that no number of seeds could tell. looks_done: how many there were.
        alpha: the share of errors that the last look was allowed.
        ended: whether none is open, or the last look has been.
        looked: how many seeds each row had at the last look; empty before the first.
    """

    seeds: dict[str, int]
    pairs: list[Pair]
    open: list[Pair]
    futile: list[Pair]
    looks_done: int
    alpha: float
    ended: bool
    looked: dict[str, int] = field(default_factory=dict)


def look_schedule(most: int) -> list[int]:
    """Return how many seeds there are at each look, up to `most`, which is 2 or more."""
    numbers = [min(FIRST_LOOK, most)]
    while numbers[-1] < most:
        numbers.append(min(most, ceil(_GROWTH * numbers[-1])))
    return numbers


def follow(
    available: Mapping[str, int],
    score: Callable[[str, int], float],
    compare: Callable[[Mapping[str, int], Sequence[str], float], Sequence[Pair]],
    decided: Callable[[Pair], bool],
    baseline: str,
    most: int,
) -> Course:
    """Return how far a table has come with the seeds there are.

    Args:
        available: seeds by row, counted from the first on without a gap; of the rows that are compared at all.
        score: of a row over its first seeds.
        compare: with so many of the first seeds of each row, every two of the rows named, all together erring in at
            most the share given. decided: whether a comparison is decided.
        baseline: the row that all are compared with. most: seeds a row may get.
    """
    seeds: dict[str, int] = {}
    looked: dict[str, int] = {}
    pairs: dict[frozenset[str], Pair] = {}
    if not available:
        return Course({}, [], [], [], 0, _ALPHA, True)
    active, before = list(available), 0
    still_open: list[Pair] = []
    futile: list[Pair] = []
    allowed = _ALPHA * look_schedule(most)[0] / most
    for number, count in enumerate(look_schedule(most)):
        seeds |= dict.fromkeys(active, count)
        if any(available[row] < count for row in active):
            return Course(seeds, list(pairs.values()), still_open, futile, number, allowed, False, looked)
        allowed = _ALPHA * (count - before) / most
        for pair in compare(seeds, active, allowed):
            key = frozenset((pair.row, pair.other))
            if key not in pairs or not decided(pairs[key]):
                pairs[key] = pair
        best = max(available, key=lambda row: score(row, seeds[row]))
        asked = [pair for key, pair in pairs.items() if not key.isdisjoint((baseline, best))]
        futile = [pair for pair in asked if pair.futile and not decided(pair)]
        still_open = [pair for pair in asked if not pair.futile and not decided(pair)]
        active = [row for row in available if any(row in (pair.row, pair.other) for pair in still_open)]
        before, looked = count, dict(seeds)
        if not still_open:
            break
    return Course(seeds, list(pairs.values()), still_open, futile, number + 1, allowed, True, looked)

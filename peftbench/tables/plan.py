"""What a table could tell before it is trained: differences by numbers of seeds, and how long these take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import median

import numpy as np

from peftbench.tables.simultaneous import join_comparisons
from peftbench.tables.verdicts import DifferenceVariance, Needs, needs

SEEDS = (2, 3, 5, 10, 20)
# Where nothing is recorded: two seeds of a row disagree on 9 % of the examples and two rows on 13 %, as in the
# calibration of docs/statistics.md; and seeds of a row have true scores 1 point apart (standard deviation).
_OF_EXAMPLES, _OF_ONE_RUN, _OF_SEEDS = 0.13 - 0.09, 0.09 / 2, 1.0
ASSUMED = (
    "two rows differ on 13 % of the examples, two seeds of a row on 9 %, and seeds by 1 point (standard deviation)"
)
_DRAWS = 4000


@dataclass(frozen=True)
class Outlook:
    """What so many seeds of each row tell, in points.

    Attributes:
        seeds: of each row. typical, hardest: the true difference that is told with a chance of 80 %, of the median pair
            of rows and of the one with the largest spread.
        equal: within how many points rows that are equal are shown to be, with a chance of 80 %; of the median pair.
        runs: how many are left to be trained. seconds: they take, None where no duration is known.
    """

    seeds: int
    typical: float
    hardest: float
    equal: float
    runs: int
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """The outlook by numbers of seeds, and what it takes to tell a difference of `delta` points.

    Attributes:
        rows, examples: how many. confidence: of each comparison, for all pairs of rows together.
        typical, hardest: what tells `delta` for the median pair, and for the one with the largest spread.
    """

    rows: int
    examples: int
    delta: float
    confidence: float
    outlooks: list[Outlook]
    typical: Needs
    hardest: Needs


def assumed_spread(examples: int, rows: int) -> DifferenceVariance:
    """Return the spread of a difference, in squared points, where no run tells it, in a table of so many rows."""
    of_seed = _OF_SEEDS**2 + 100**2 * _OF_ONE_RUN / examples
    return DifferenceVariance(100**2 * _OF_EXAMPLES / examples, of_seed, of_seed, rows)


def make_plan(
    spreads: Sequence[DifferenceVariance],
    rows: int,
    trained: Mapping[str, int],
    durations: Mapping[str, float | None],
    examples: int,
    delta: float,
    seeds: int,
) -> Plan:
    """Return the plan.

    Args:
        spreads: of differences between rows, in squared points; at least one.
        rows: how many are compared.
        trained: how many seeds there are of each training that rows need, by any name; rows of one training are one,
            and what is prepared for rows is one more. durations: seconds of one run of each.
        examples: that scores are over.
        delta: the difference that is to be told, in points.
        seeds: how many each row is to have by the table's spec.
    """
    confidence = _confidence(spreads, rows, max(seeds, 2))
    of_pairs = sorted((needs(spread, delta, confidence, examples) for spread in spreads), key=_much)
    found = of_pairs[(len(of_pairs) - 1) // 2], of_pairs[-1]
    numbers = {number for number in (*SEEDS, seeds, *(need.seeds for need in found)) if number and number > 1}
    return Plan(
        rows=rows,
        examples=examples,
        delta=delta,
        confidence=confidence,
        outlooks=[
            Outlook(
                number,
                median(spread.detectable(number, confidence) for spread in spreads),
                max(spread.detectable(number, confidence) for spread in spreads),
                median(spread.equivalence(number, confidence) for spread in spreads),
                sum(max(0, number - there) for there in trained.values()),
                _seconds(number, trained, durations),
            )
            for number in sorted(numbers)
        ],
        typical=found[0],
        hardest=found[1],
    )


def fill_durations(known: Mapping[str, float | None], others: Sequence[float]) -> dict[str, float | None]:
    """Return a duration for each row: its own, or else the median of the other rows', or else of `others`."""
    recorded = [seconds for seconds in known.values() if seconds is not None]
    rest = median(recorded or others) if recorded or others else None
    return {label: rest if seconds is None else seconds for label, seconds in known.items()}


def _seconds(seeds: int, trained: Mapping[str, int], durations: Mapping[str, float | None]) -> float | None:
    total = 0.0
    for label, there in trained.items():
        seconds = durations[label]
        if seconds is None:
            return None
        total += max(0, seeds - there) * seconds
    return total


def _much(need: Needs) -> tuple[float, float]:
    return (inf, need.examples or inf) if need.seeds is None else (need.seeds, 0)


def _confidence(spreads: Sequence[DifferenceVariance], rows: int, seeds: int) -> float:
    """Return the confidence that all pairs of so many rows ask for, if all have the median spread."""
    generator = np.random.default_rng(0)
    scores = np.linspace(-1, 1, seeds)
    variance = median((spread.row_variance + spread.other_variance) / 2 for spread in spreads)
    scores *= np.sqrt(variance) / scores.std(ddof=1)
    of_examples = np.sqrt(median(spread.examples for spread in spreads) / 2)
    draws = {}
    for row in range(rows):
        deviations = of_examples * generator.standard_normal(_DRAWS)
        draws[row] = scores + np.concatenate([[0], deviations])[:, None]
    return join_comparisons(list(combinations(draws, 2)), draws).confidence

"""How far apart the rows of a table are, each pair of them, and how sure that is for all together."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from peftbench.tables.columns import POINTS
from peftbench.tables.pooling import Pool
from peftbench.tables.scored import RowScores
from peftbench.tables.simultaneous import Joint, join_comparisons
from peftbench.tables.statistics import Interval, difference_interval
from peftbench.tables.table import Pair
from peftbench.tables.verdicts import DELTA, OPEN, is_futile, needs_as_measured, spread_of, verdict

# (row, other row, metric)
Comparison = tuple[str, str, str]


def compare_pairs(
    scored: Mapping[str, RowScores],
    metric: str,
    delta: float = DELTA,
    alpha: float = 0.05,
    compared: Sequence[str] | None = None,
) -> list[Pair]:
    """Return the difference of every two rows in points of `metric`.

    Of `compared` rows alone, where they are given: the others tell of the spread over seeds.

    All k (k − 1) / 2 comparisons together err in at most `alpha` of the cases, so that the best row may be picked first
    and compared then. Rows of one seed have no interval. `delta` as for `verdicts.verdict`.
    """
    scored = {label: row.labelled(label) for label, row in scored.items()}
    pairs = list(combinations(compared or scored, 2))
    joint = join_table(comparable([(row, other, metric) for row, other in pairs], scored), scored, alpha)
    found = []
    for row, other in pairs:
        pair = compare(row, other, metric, scored, joint, delta)
        if pair is not None:
            found.append(pair)
    return found


def compare(
    row: str, other: str, metric: str, scored: Mapping[str, RowScores], joint: Joint, delta: float
) -> Pair | None:
    """Return one difference with its verdict, and what would decide it; None where the two are of other examples."""
    row_scores, other_scores = scored[row], scored[other]
    difference = row_scores.difference(metric, other_scores, joint)
    if difference is None:
        return None
    draws = POINTS * row_scores.draws(metric), POINTS * other_scores.draws(metric)
    pool = joint.pool(metric).scaled(POINTS)
    return judged(row, other, difference, *draws, joint.confidence, pool, delta, len(row_scores.labels))


def compare_draws(
    row: str,
    other: str,
    draws: Mapping[str, np.ndarray],
    confidence: float,
    pool: Pool,
    delta: float,
    examples: int,
    widest: float,
) -> Pair:
    """Return one difference with its verdict, and what would decide it, none beyond ± `widest`; see `judged`.

    `draws` are (1 + draws, seeds) by label, in points.
    """
    row_draws, other_draws = draws[row], draws[other]
    difference = difference_interval(row_draws, other_draws, confidence, pool).within(-widest, widest)
    return judged(row, other, difference, row_draws, other_draws, confidence, pool, delta, examples)


def judged(
    row: str,
    other: str,
    difference: Interval,
    row_draws: np.ndarray,
    other_draws: np.ndarray,
    confidence: float,
    pool: Pool,
    delta: float,
    examples: int,
) -> Pair:
    """Return a difference with its verdict, and what would decide it.

    Args:
        row, other: labels of the two. difference: its interval at `confidence`, in points.
        row_draws, other_draws: (1 + draws, seeds) of each, in points. examples: how many they are over.
        pool: what the rows of their table have in common, in points.
        delta: as for `verdicts.verdict`.
    """
    decision = verdict(difference.low, difference.high, delta)
    if decision != OPEN or difference.low is None:
        return Pair(row, other, *difference, decision)
    spread = spread_of(row_draws, other_draws, pool)
    needed = needs_as_measured(spread, difference.estimate, delta, confidence, examples)
    more = None if needed.seeds is None else max(needed.seeds, min(row_draws.shape[1], other_draws.shape[1]) + 1)
    futile = is_futile(spread, difference, (row_draws.shape[1], other_draws.shape[1]), confidence, delta)
    return Pair(row, other, *difference, decision, more, needed.examples, futile=futile)


def comparable(comparisons: Sequence[Comparison], scored: Mapping[str, RowScores]) -> list[Comparison]:
    """Return, each once, the comparisons that can have an interval: of rows with two seeds, over the same examples."""
    different = {(frozenset((row, other)), metric): (row, other, metric) for row, other, metric in comparisons}
    return [
        (row, other, metric)
        for row, other, metric in different.values()
        if row in scored
        and other in scored
        and min(len(scored[row].seeds), len(scored[other].seeds)) > 1
        and scored[row].has_examples_of(scored[other])
    ]


def join_table(comparisons: Sequence[Comparison], scored: Mapping[str, RowScores], alpha: float = 0.05) -> Joint:
    """Return how each of the `comparable` comparisons is made for all together to err as often as `alpha`.

    All rows of these examples tell of the spread over seeds, compared or not.
    """
    compared = dict.fromkeys(key for row, other, metric in comparisons for key in ((row, metric), (other, metric)))
    beside = [
        (label, metric)
        for metric, first in {metric: row for row, metric in compared}.items()
        for label, row in scored.items()
        if len(row.seeds) > 1 and row.has_examples_of(scored[first])
    ]
    draws = {(label, metric): scored[label].draws(metric) for label, metric in dict.fromkeys([*compared, *beside])}
    keys_compared = [((row, metric), (other, metric)) for row, other, metric in comparisons]
    return join_comparisons(keys_compared, draws, alpha, kind=lambda key: key[1])

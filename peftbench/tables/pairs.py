"""How far apart the rows of a table are, each pair of them, and how sure that is for all together."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from peftbench.tables.columns import SCORES
from peftbench.tables.scored import RowScores
from peftbench.tables.simultaneous import joint_confidence
from peftbench.tables.table import Pair

# (row, other row, metric)
Comparison = tuple[str, str, str]


def compare_pairs(scored: Mapping[str, RowScores], metric: str, alpha: float = 0.05) -> list[Pair]:
    """Return the difference of every two rows in points of `metric`; none where there is no statistic for it.

    All k (k − 1) / 2 comparisons together err in at most `alpha` of the cases, so that the best row may be picked first
    and compared then. Rows of one seed have no interval.
    """
    pairs = list(combinations(scored, 2)) if metric in SCORES else []
    confidence = confidence_of(comparable([(row, other, metric) for row, other in pairs], scored), scored, alpha)
    found = []
    for row, other in pairs:
        difference = scored[row].difference(metric, scored[other], confidence)
        if difference is not None:
            found.append(Pair(row, other, *difference))
    return found


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


def confidence_of(comparisons: Sequence[Comparison], scored: Mapping[str, RowScores], alpha: float = 0.05) -> float:
    """Return the confidence of each of the `comparable` comparisons with which all together err as often as `alpha`."""
    keys = dict.fromkeys(key for row, other, metric in comparisons for key in ((row, metric), (other, metric)))
    draws = {(label, metric): scored[label].draws(metric) for label, metric in keys}
    return joint_confidence([((row, metric), (other, metric)) for row, other, metric in comparisons], draws, alpha)

"""How far apart the rows of a table are, each pair of them."""

from collections.abc import Mapping
from itertools import combinations

from peftbench.tables.columns import SCORES
from peftbench.tables.scored import RowScores
from peftbench.tables.table import Pair


def compare_pairs(scored: Mapping[str, RowScores], metric: str, alpha: float = 0.05) -> list[Pair]:
    """Return the difference of every two rows in points of `metric`; none where there is no statistic for it.

    All k (k − 1) / 2 comparisons together err in at most `alpha` of the cases (Bonferroni), so that the best row may be
    picked first and compared then. Rows that have no two seeds in common have no interval.
    """
    pairs = list(combinations(scored, 2)) if metric in SCORES else []
    found = []
    for row, other in pairs:
        difference = scored[row].difference(metric, scored[other], 1 - alpha / len(pairs))
        if difference is not None:
            found.append(Pair(row, other, *difference))
    return found

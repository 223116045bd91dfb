"""How sure each of several comparisons must be for all of them together to be so, by their joint distribution.

All comparisons are made at one confidence (balanced: Beran 1988), so that rows with few seeds widen their own
intervals alone. It is the least that leaves a table of equal rows free of errors as often as is asked, found from what
the comparisons would come to in each of many draws: comparisons share rows, and all share the examples, so that it
takes less than Bonferroni's 1 − α / comparisons. With rows of equal known variance, and of seeds alone, it is Tukey's
range for all pairs, and Dunnett's test (1955) for those with one baseline.

A draw is one of the bootstrap's for the examples and a normal one for the seeds, over what the drawn seeds themselves
would tell of their spread (the studentised parametric bootstrap). Variances of seeds are pooled for this: equal ones
have the largest range (Hayter 1984 on Tukey and Kramer), and own ones of few seeds would name rows alike by chance.
Seeds of two metrics are taken as independent, which asks for no less (Royen 2014).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from peftbench.tables.statistics import common_part, seeds_variance

Key = TypeVar("Key", bound=Hashable)


def joint_confidence(
    comparisons: Sequence[tuple[Key, Key]], rows: Mapping[Key, np.ndarray], alpha: float = 0.05
) -> float:
    """Return the confidence of each comparison with which all together err in at most `alpha` of the cases.

    Args:
        comparisons: pairs of keys of `rows`.
        rows: (1 + draws, seeds) scores of each row, two seeds or more, as for `statistics.difference_interval`.
        alpha: the share of tables in which any comparison may err.
    """
    if len(comparisons) < 2:
        return 1 - alpha
    draws = len(next(iter(rows.values()))) - 1
    generator = np.random.default_rng(0)
    errors, variances = {}, {}
    for key, row in rows.items():
        seeds = row.shape[1]
        errors[key] = generator.standard_normal(draws) / np.sqrt(seeds)
        variances[key] = generator.chisquare(seeds - 1, draws) / (seeds - 1) / seeds
    freedom = [row.shape[1] - 1 for row in rows.values()]
    spread = np.average([row.shape[1] * seeds_variance(row) for row in rows.values()], weights=freedom)
    largest = np.zeros(draws)
    for one, other in comparisons:
        ours, theirs = rows[one], rows[other]
        deviations = ours.mean(axis=1) - theirs.mean(axis=1)
        examples = common_part(deviations[1:] - deviations[0], [ours, theirs])
        differences = examples + np.sqrt(spread) * (errors[one] - errors[other])
        variance = examples.var() + spread * (variances[one] + variances[other])
        if variance.any():
            order = np.argsort(np.argsort(differences / np.sqrt(variance)))
            largest = np.maximum(largest, np.abs((2 * order + 1) / draws - 1))
    return float(np.clip(np.quantile(largest, 1 - alpha), 1 - alpha, 1 - alpha / len(comparisons)))

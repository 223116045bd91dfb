"""How sure each of several comparisons must be for all of them together to be so, by their joint distribution.

All comparisons are made at one confidence (balanced: Beran 1988), so that rows with few seeds widen their own
intervals alone. It is the least that leaves a table of equal rows free of errors as often as is asked, found from what
the comparisons would come to in each of many draws: comparisons share rows, and all share the examples, so that it
takes less than Bonferroni's 1 − α / comparisons. With rows of equal known variance, and of seeds alone, it is Tukey's
range for all pairs, and Dunnett's test (1955) for those with one baseline.

A draw is one of the bootstrap's for the examples and a normal one for the seeds, over what the drawn seeds themselves
would tell of their spread (the studentised parametric bootstrap). It is made with the variances of each row's own
seeds and with pooled ones, for own ones of few seeds make comparisons look alike by chance, and what asks for more is
taken. Seeds of two metrics are taken as independent, which asks for no less (Royen 2014).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from peftbench.tables.statistics import common_part, own_variance

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
    means = {key: row.mean(axis=1) for key, row in rows.items()}
    alone = {key: own_variance(row) for key, row in rows.items()}
    differences = [means[one] - means[other] for one, other in comparisons]
    examples = [
        common_part(difference[1:] - difference[0], alone[one] + alone[other])
        for difference, (one, other) in zip(differences, comparisons, strict=True)
    ]
    seeds = {key: row.shape[1] for key, row in rows.items()}
    own = {key: float(row[0].var(ddof=1)) for key, row in rows.items()}
    pooled = float(np.average(list(own.values()), weights=[number - 1 for number in seeds.values()]))
    found = max(
        _confidence(comparisons, examples, seeds, spread, alpha) for spread in (own, dict.fromkeys(own, pooled))
    )
    return float(np.clip(found, 1 - alpha, 1 - alpha / len(comparisons)))


def _confidence(
    comparisons: Sequence[tuple[Key, Key]],
    examples: Sequence[np.ndarray],
    seeds: Mapping[Key, int],
    spread: Mapping[Key, float],
    alpha: float,
) -> float:
    """Return the confidence where the seeds of each row have the variance `spread`, and `examples` is common."""
    draws = len(examples[0])
    generator = np.random.default_rng(0)
    errors, variances = {}, {}
    for key, number in seeds.items():
        variance = spread[key] / number
        errors[key] = np.sqrt(variance) * generator.standard_normal(draws)
        variances[key] = variance * generator.chisquare(number - 1, draws) / (number - 1)
    largest = np.zeros(draws)
    for (one, other), common in zip(comparisons, examples, strict=True):
        variance = common.var() + variances[one] + variances[other]
        if variance.any():
            places = np.argsort(np.argsort((common + errors[one] - errors[other]) / np.sqrt(variance)))
            largest = np.maximum(largest, np.abs((2 * places + 1) / draws - 1))
    return float(np.quantile(largest, 1 - alpha))

"""How sure each of several comparisons must be for all of them together to be so, by their joint distribution.

All comparisons are made at one confidence (balanced: Beran 1988), so that rows with few seeds widen their own
intervals alone. It is the least that leaves a table of equal rows free of errors as often as is asked, found from what
the comparisons would come to in each of many draws: comparisons share rows, and all share the examples, so that it
takes less than Bonferroni's 1 − α / comparisons. With rows of equal known variance, and of seeds alone, it is Tukey's
range for all pairs, and Dunnett's test (1955) for those with one baseline.

A draw is one of the bootstrap's for the examples and a normal one for the seeds, over what the drawn seeds themselves
would tell of their spread, moderated as in `pooling.py` (the studentised parametric bootstrap). It is made with the
variances of each row's own seeds and with pooled ones, for own ones of few seeds make comparisons look alike by chance,
and what asks for more is taken. Seeds of two metrics are taken as independent, which asks for no less (Royen 2014).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from peftbench.tables.pooling import UNPOOLED, Pool, moderate, pool_rows, pooled_variances
from peftbench.tables.statistics import common_part, over_seeds, unshared_variance

Key = TypeVar("Key", bound=Hashable)


class Joint(NamedTuple):
    """How each comparison is made for all of them to hold together.

    Attributes:
        confidence: of each.
        pools: what rows of one kind have in common, by kind.
    """

    confidence: float
    pools: Mapping[Hashable, Pool]

    def pool(self, kind: Hashable) -> Pool:
        """Return what rows of a kind have in common; nothing where none of them is compared."""
        return self.pools.get(kind, UNPOOLED)


def join_comparisons(
    comparisons: Sequence[tuple[Key, Key]],
    rows: Mapping[Key, np.ndarray],
    alpha: float = 0.05,
    kind: Callable[[Key], Hashable] = lambda key: None,
) -> Joint:
    """Return with which confidence of each all comparisons together err in at most `alpha` of the cases.

    Args:
        comparisons: pairs of keys of `rows`.
        rows: (1 + draws, seeds) scores of each row, two seeds or more, as for `statistics.difference_interval`.
        alpha: the share of tables in which any comparison may err.
        kind: what a key's row is pooled with: rows of the same kind.
    """
    kinds: dict[Hashable, list[Key]] = {}
    for key in rows:
        kinds.setdefault(kind(key), []).append(key)
    pools = {name: pool_rows(rows[key] for key in keys) for name, keys in kinds.items()}
    if len(comparisons) < 2:
        return Joint(1 - alpha, pools)
    means = {key: over_seeds(row) for key, row in rows.items()}
    unshared = {key: unshared_variance(row) for key, row in rows.items()}
    differences = [means[first] - means[second] for first, second in comparisons]
    examples = [
        common_part(difference[1:] - difference[0], unshared[first] + unshared[second])
        for difference, (first, second) in zip(differences, comparisons, strict=True)
    ]
    seeds = {key: row.shape[1] for key, row in rows.items()}
    variances = {key: float(row[0].var(ddof=1)) for key, row in rows.items()}
    pooled = float(np.average(list(variances.values()), weights=[number - 1 for number in seeds.values()]))
    found = max(
        _confidence(comparisons, examples, seeds, spread, list(kinds.values()), alpha)
        for spread in (variances, dict.fromkeys(variances, pooled))
    )
    return Joint(float(np.clip(found, 1 - alpha, 1 - alpha / len(comparisons))), pools)


def _confidence(
    comparisons: Sequence[tuple[Key, Key]],
    examples: Sequence[np.ndarray],
    seeds: Mapping[Key, int],
    spread: Mapping[Key, float],
    kinds: Sequence[Sequence[Key]],
    alpha: float,
) -> float:
    """Return the confidence where the seeds of each row have the variance `spread`, and `examples` is common."""
    draws = len(examples[0])
    generator = np.random.default_rng(0)
    errors, measured = {}, {}
    variances: dict[Key, np.ndarray] = {}
    for key, number in seeds.items():
        errors[key] = np.sqrt(spread[key] / number) * generator.standard_normal(draws)
        measured[key] = spread[key] * generator.chisquare(number - 1, draws) / (number - 1)
    for alike in kinds:
        pooled, _ = pooled_variances([measured[key] for key in alike], [seeds[key] for key in alike])
        variances |= {key: moderate(measured[key], pooled) / seeds[key] for key in alike}
    largest = np.zeros(draws)
    # of the draws at either end: the confidence whose interval would just miss each; one below 1 − α decides nothing
    tail = min(int(np.ceil(alpha * draws)), (draws + 1) // 2)
    sureness = 1 - (2 * np.arange(tail) + 1) / draws
    for (first, second), common in zip(comparisons, examples, strict=True):
        variance = common.var() + variances[first] + variances[second]
        if variance.any():
            differences = (common + errors[first] - errors[second]) / np.sqrt(variance)
            for ends in (differences, -differences):
                lowest = np.argpartition(ends, tail - 1)[:tail]
                lowest = lowest[np.argsort(ends[lowest])]
                largest[lowest] = np.maximum(largest[lowest], sureness)
    return float(np.quantile(largest, 1 - alpha))

"""How far systems of one run each are apart, as far as the examples tell: another seed may say otherwise."""

from collections.abc import Mapping

import numpy as np

from peftbench.tables.table import Pair
from peftbench.tables.verdicts import OPEN, DifferenceVariance, needs_as_measured, verdict

# the share of tables in which any interval may miss
_ALPHA = 0.05


def compare_runs(draws: Mapping[str, np.ndarray], delta: float, examples: int) -> list[Pair]:
    """Return the difference of every two systems with its interval, 95 % for all of them together.

    Every interval is as many standard errors wide as the largest of all differences reaches in 95 % of the draws:
    Tukey's range, for scores of any covariance (Hothorn, Bretz & Westfall 2008).

    Args:
        draws: (1 + draws, 1) of each system, from `draws.draw_scores`, in points.
        delta: as for `verdicts.verdict`. examples: how many the scores are over.
    """
    from scipy.special import ndtr

    names = list(draws)
    scores = np.concatenate([draws[name] for name in names], axis=1)
    deviations = scores[1:] - scores[0]
    variances = deviations.T @ deviations / len(deviations)
    diagonal = np.diag(variances)
    errors = np.sqrt(diagonal[:, None] + diagonal - 2 * variances)
    largest = np.zeros(len(deviations))
    for index in range(len(names) - 1):
        others = slice(index + 1, None)
        apart = np.abs(deviations[:, [index]] - deviations[:, others])
        largest = np.maximum(largest, (apart / errors[index, others]).max(axis=1))
    width = float(np.quantile(largest, 1 - _ALPHA))
    confidence = 2 * float(ndtr(width)) - 1
    pairs = []
    for index, name in enumerate(names):
        for place in range(index + 1, len(names)):
            apart, error = float(scores[0, index] - scores[0, place]), float(errors[index, place])
            low, high = apart - width * error, apart + width * error
            decision, more = verdict(low, high, delta), None
            if decision == OPEN:
                more = needs_as_measured(
                    DifferenceVariance(error**2, 0, 0), apart, delta, confidence, examples
                ).examples
            pairs.append(Pair(name, names[place], apart, low, high, decision, needs_examples=more, single=True))
    return pairs

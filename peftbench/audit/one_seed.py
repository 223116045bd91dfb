"""How far systems of one run each are apart, as far as the examples tell: another seed may say otherwise."""

from collections.abc import Mapping

import numpy as np

from peftbench.tables.table import Pair


def compare_runs(draws: Mapping[str, np.ndarray], unit: float = 1.0, alpha: float = 0.05) -> list[Pair]:
    """Return the difference of every two systems with its interval, 1 − `alpha` for all of them together.

    Every interval is as many standard errors wide as the largest of all differences reaches in 1 − `alpha` of the
    draws: Tukey's range, for scores of any covariance (Hothorn, Bretz & Westfall 2008).

    Args:
        draws: (1 + draws, 1) of each system, from `draws.draw_scores`.
        unit: what differences are multiplied by.
    """
    names = list(draws)
    scores = np.concatenate([draws[name] for name in names], axis=1)
    deviations = scores[1:] - scores[0]
    variances = deviations.T @ deviations / len(deviations)
    largest = np.zeros(len(deviations))
    errors = {}
    for index in range(len(names) - 1):
        others = slice(index + 1, None)
        of_pairs = variances[index, index] + np.diag(variances)[others] - 2 * variances[index, others]
        errors[index] = np.sqrt(np.maximum(of_pairs, 0))
        apart = np.abs(deviations[:, [index]] - deviations[:, others])
        # systems that answered all alike have a difference of 0 for certain
        in_errors = np.divide(apart, errors[index], out=np.zeros_like(apart), where=errors[index] > 1e-12)
        largest = np.maximum(largest, in_errors.max(axis=1))
    width = float(np.quantile(largest, 1 - alpha))
    return [
        Pair(name, other, *(unit * end for end in (apart, apart - width * error, apart + width * error)))
        for index, name in enumerate(names[:-1])
        for other, apart, error in zip(
            names[index + 1 :], scores[0, index] - scores[0, index + 1 :], errors[index], strict=True
        )
    ]

"""How probable it is that a row is the best of a table.

The share of joint draws in which its mean score is the highest. A draw is the measured score, one of the bootstrap's
deviations over the examples, the same examples for all rows, and Student's t for each row's seeds, with what single
runs vary by over examples counted once, as in `statistics.py`. Such draws are what the data leave open about the true
scores if nothing was known before (a fiducial distribution: Behrens and Fisher's for two rows); how often it comes true
is simulated in `scripts/calibrate_statistics.py`.
"""

from collections.abc import Mapping

import numpy as np

from peftbench.tables.pooling import UNPOOLED, Pool
from peftbench.tables.simultaneous import Key
from peftbench.tables.statistics import seeds_freedom, seeds_variance, unshared_variance

# of the largest figure: what is less is rounding, and rows no further apart are tied
_ROUNDING = 1e-9


def probabilities_best(rows: Mapping[Key, np.ndarray], pool: Pool = UNPOOLED) -> dict[Key, float]:
    """Return how probable it is of each row that it is the best.

    `rows` are (1 + draws, seeds), of two seeds or more, and `pool` what they have in common.
    """
    means = np.stack([row.mean(axis=1) for row in rows.values()], axis=1)
    draws = means[0] + _common_parts(means[1:] - means[0], [unshared_variance(row) for row in rows.values()])
    generator = np.random.default_rng(1)
    for column, row in enumerate(rows.values()):
        of_seeds = generator.standard_t(seeds_freedom(row, pool), len(draws))
        draws[:, column] += np.sqrt(seeds_variance(row, pool)) * of_seeds
    best = draws >= draws.max(axis=1, keepdims=True) - _ROUNDING * np.abs(draws).max()
    shares = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(rows, map(float, shares), strict=True))


def _common_parts(deviations: np.ndarray, unshared: list[float]) -> np.ndarray:
    """Return deviations, (draws, rows), without the variance that each row's runs have by themselves."""
    covariance = np.cov(deviations, rowvar=False).reshape(len(unshared), len(unshared))
    values, vectors = np.linalg.eigh(covariance)
    least = _ROUNDING * max(values.max(), 1e-300)
    scale = np.where(values > least, 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    left, basis = np.linalg.eigh(covariance - np.diag(unshared))
    left = np.where(left > least, left, 0)
    return deviations @ (vectors * scale) @ vectors.T @ (basis * np.sqrt(left)) @ basis.T

"""Uncertainty of scores and of their differences: from the evaluation examples and from the seeds.

A row's score is a mean over s seeds and n examples, both taken from more that there might be. The two parts of its
uncertainty are joined as for several readers of the same cases (Obuchowski & Rockette 1995; Hillis 2007), with seeds
as readers, who belong to one row each:

- Examples: by the bootstrap (`bootstrap.py`), the same draws for both sides of a difference. What single runs vary by
  over examples is in the spread of the seeds too. Of the bootstrap's variance only the covariance between different
  runs is kept, therefore, or it would count twice (Cameron, Gelbach & Miller 2011 on two-way clusters; Owen 2007).
- Seeds: S²/s with S² the variance of the s scores, and Student's t with s − 1 degrees of freedom. Percentiles of few
  seeds cannot leave their range, and are far too narrow. In a table of three rows or more S² is moderated by the other
  rows', for more degrees of freedom (`pooling.py`).

Both parts are independent and are added as distributions, t and bootstrap, as Behrens and Fisher did for two t, which
errs on the safe side (Robinson 1976). One effective number of degrees of freedom for all parts (Satterthwaite 1946)
does not: where two seeds happen to agree it takes the known part for the whole. An interval is never narrower than
the bootstrap of these runs alone, which matters where seeds have equal scores by chance.

Difference of two rows: runs of one seed share its number and the order of the examples, which has shown no common
effect on scores. So seeds are not paired: variances of the two rows add, as in Welch's test (1947), which remains right
where they are unequal, unlike a pooled variance, and errs on the safe side where seeds do have an effect in common.
Welch's degrees of freedom, s − 1 … 2 (s − 1), are estimated and too many for few seeds of unequal variance; s − 1
always suffice (Mickey & Brown 1966). A quarter of the way from these to Welch's is taken, and for both rows the s of
the one with fewer seeds: it keeps the nominal error at any ratio of the variances from 2 seeds on, far out in the tails
too, where many comparisons are made. `scripts/calibrate_statistics.py` shows this by simulation: docs/statistics.md.

One seed tells nothing of how seeds vary, so its figures have no interval.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import floor, log10
from typing import NamedTuple

import numpy as np

from peftbench.tables.pooling import UNPOOLED, Pool, freedom_of, moderate, rows_like


class Interval(NamedTuple):
    """An estimate and the interval around it; one of a single seed has none."""

    estimate: float
    low: float | None
    high: float | None

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside; no interval excludes anything."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def within(self, least: float, most: float) -> "Interval":
        """Return it cut to the values that the figure can have."""
        low, high = (None if end is None else min(max(end, least), most) for end in (self.low, self.high))
        return Interval(self.estimate, low, high)

    def scaled(self, factor: float) -> "Interval":
        """Return it in another unit; `factor` is positive."""
        low, high = (None if end is None else factor * end for end in (self.low, self.high))
        return Interval(factor * self.estimate, low, high)


def score_interval(draws: np.ndarray, confidence: float = 0.95, pool: Pool = UNPOOLED) -> Interval:
    """Return the mean score over the seeds with its interval.

    Args:
        draws: (1 + draws, seeds), each seed's score on the sample and on every draw, from `bootstrap.score_draws`.
        confidence: how often such an interval is to contain the truth.
        pool: of all rows of the table, which tell more of how seeds vary.
    """
    means = over_seeds(draws)
    return _interval(means[0], means[1:] - means[0], [draws], [1.0], confidence, pool)


def difference_interval(
    row: np.ndarray, other: np.ndarray, confidence: float = 0.95, pool: Pool = UNPOOLED
) -> Interval:
    """Return mean(row) − mean(other) with its interval, examples paired; draws as above, of the same examples."""
    differences = over_seeds(row) - over_seeds(other)
    return _interval(differences[0], differences[1:] - differences[0], [row, other], [1.0, 1.0], confidence, pool)


def ratio_interval(
    row: np.ndarray, other: np.ndarray, confidence: float = 0.95, pool: Pool = UNPOOLED
) -> Interval | None:
    """Return mean(row) / mean(other) with its interval, examples paired; None where the other can be 0.

    The seeds' part is that of mean(row) − ratio × mean(other), divided by mean(other) (the delta method).
    """
    above, below = over_seeds(row), over_seeds(other)
    if np.any(below <= 0):
        return None
    ratios = above / below
    scales = [1 / below[0], ratios[0] / below[0]]
    return _interval(ratios[0], ratios[1:] - ratios[0], [row, other], scales, confidence, pool)


def _interval(
    estimate: float,
    examples: np.ndarray,
    rows: Sequence[np.ndarray],
    scales: Sequence[float],
    confidence: float,
    pool: Pool,
) -> Interval:
    """Join the parts.

    Args:
        examples: (draws,), the bootstrap's deviations.
        rows: the draws of each row. scales: what their means are multiplied by in the estimate, positive.
    """
    if any(row.shape[1] < 2 for row in rows):
        return Interval(float(estimate), None, None)
    tail = (1 - confidence) / 2
    unshared = sum(scale**2 * unshared_variance(row) for row, scale in zip(rows, scales, strict=True))
    variances = np.array([scale**2 * seeds_variance(row, pool) for row, scale in zip(rows, scales, strict=True)])
    freedom = degrees_of_freedom(variances, min(seeds_freedom(row, pool) for row in rows))
    both = common_part(examples, unshared) + _seeds_part(variances.sum(), freedom, len(examples))
    # of n draws the k-th lowest lies where k / (n + 1) are expected below: others are too narrow far out in the tails
    ends = np.quantile([both, examples], (tail, 1 - tail), axis=1, method="weibull")
    # of a very skew distribution around its mean an end may lie on the other side of it
    low, high = min(0.0, ends[0].min()), max(0.0, ends[1].max())
    return Interval(float(estimate), float(estimate + low), float(estimate + high))


def over_seeds(row: np.ndarray) -> np.ndarray:
    """Return the mean over the seeds, (1 + draws,), of the draws of a row, (1 + draws, seeds)."""
    seeds = row.shape[1]
    means: np.ndarray = row @ np.full(seeds, 1 / seeds)  # ten times as fast as mean() along so short an axis
    return means


def centred(draws: np.ndarray) -> np.ndarray:
    """Move the draws of each seed, (1 + draws, seeds), so that their mean is the score on the sample itself.

    A mean over the classes that occur is higher in draws that miss a rare one on which the score is low: how scores
    vary is read off the bootstrap, and not by how much they are off.
    """
    moved = draws + (draws[0] - draws[1:].mean(axis=0))
    moved[0] = draws[0]
    return moved


def common_part(examples: np.ndarray, unshared: float) -> np.ndarray:
    """Shrink the bootstrap's deviations, (draws,), to what all runs of a row share; `unshared` is of all rows in it."""
    variance = examples.var()
    return examples * np.sqrt(max(0.0, 1 - unshared / variance)) if variance > 0 else examples


def unshared_variance(row: np.ndarray) -> float:
    """Return the part of the variance over examples of a row's mean that each of its runs has by itself; as above."""
    deviations, seeds = row[1:] - row[0], row.shape[1]
    summed = deviations @ np.ones(seeds)
    # the trace and the sum of the seeds' covariances; the matrix itself takes longer
    trace, whole = np.einsum("ij,ij->", deviations, deviations), np.einsum("i,i->", summed, summed)
    apart = trace - whole / seeds
    # of runs that are all alike rounding leaves less
    return float(apart / len(deviations) / (seeds - 1) / seeds) if apart > 1e-12 * trace else 0.0


def seeds_variance(row: np.ndarray, pool: Pool = UNPOOLED) -> float:
    """Return the variance of a row's mean over its seeds, S²/s, moderated by the pool's; `row` as above."""
    return moderate(float(row[0].var(ddof=1)), pool.variance) / row.shape[1]


def seeds_freedom(row: np.ndarray, pool: Pool = UNPOOLED) -> float:
    """Return the degrees of freedom of `seeds_variance`."""
    return freedom_of(row.shape[1], rows_like(float(row[0].var(ddof=1)), pool))


def degrees_of_freedom(variances: np.ndarray, fewest: float) -> float:
    """Return those of Student's t for a difference of rows, or for one.

    Args:
        variances: of the rows' means. fewest: degrees of freedom that any of these has.
    """
    if not variances.any():
        return fewest
    welch = variances.sum() ** 2 / (variances**2).sum()
    return float(fewest * (3 + welch) / 4)


def _seeds_part(variance: float, freedom: float, draws: int) -> np.ndarray:
    """Return Student's t times its scale at as many equally likely points as there are draws, from low to high.

    The draws they are added to come in no order.
    """
    return np.sqrt(variance) * _t_points(_rounded_down(freedom), draws)


def _rounded_down(freedom: float) -> float:
    """Round to three digits, so that pairs of rows share their points; fewer degrees of freedom are the safe side."""
    unit = 10.0 ** (floor(log10(freedom)) - 2)
    return floor(freedom / unit + 1e-9) * unit


@lru_cache(maxsize=256)
def _t_points(freedom: float, draws: int) -> np.ndarray:
    from scipy.special import stdtrit

    above = stdtrit(freedom, (np.arange((draws + 1) // 2, draws) + 0.5) / draws)
    return np.concatenate([-above[::-1], np.zeros(draws % 2), above])

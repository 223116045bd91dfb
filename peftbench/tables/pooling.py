"""How much the seeds of a row vary, with what the other rows of its table say of it.

Few seeds tell little of their own spread: far out in the tails, where many comparisons of a table are made, Student's t
of 2 degrees of freedom is ten times as wide as that of 20. Rows of one table vary alike, though not equally. So a row's
variance is moderated: a quarter its own and three quarters the mean of all rows, as is done for the many genes of few
samples (Smyth 2004), with a fixed weight, for the rows of a table are too few to tell one. It is never less than its
own, and a row far wilder than the others is judged by itself, as Phipson et al. (2016) do it; one that does not depend
on its seed at all is taken to vary too, which errs on the safe side. `scripts/calibrate_statistics.py` shows by
simulation how often this errs, with rows alike and unlike.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

_ROW_WEIGHT = 0.25
# degrees of freedom that other rows lend for one of a row's own, at most: more would trust that rows are alike
_MOST_LENT = 3.0
_FEWEST_ROWS = 3
# times the typical variance: of rows that vary alike few are beyond it, 5 % with 2 seeds, 2 % with 3, less with more
_FAR = 4.0

Variance = TypeVar("Variance", float, np.ndarray)


class Pool(NamedTuple):
    """What the rows of a table have in common.

    Attributes:
        variance: of one seed's score.
        far: the variance beyond which a row is judged by itself.
        rows: how many there are.
    """

    variance: float
    far: float
    rows: int

    def scaled(self, factor: float) -> "Pool":
        """Return it for scores in another unit."""
        return Pool(self.variance * factor**2, self.far * factor**2, self.rows)


# of a row that no others are known beside
UNPOOLED = Pool(0.0, 0.0, 1)


def pool_rows(rows: Iterable[np.ndarray]) -> Pool:
    """Return what rows have in common, each (1 + draws, seeds) of two seeds or more; two rows alone are not pooled."""
    scores = [row[0] for row in rows]
    if len(scores) < _FEWEST_ROWS:
        return UNPOOLED
    variance, far = pooled_variances([row.var(ddof=1) for row in scores], [len(row) for row in scores])
    return Pool(float(variance), float(far), len(scores))


def pooled_variances(variances: Sequence[Any], seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return what variances of rows, numbers or arrays, have in common, and beyond what one is far; 0 of two rows.

    It is their mean, weighted by their degrees of freedom, in which one that is far counts no more than if it just were
    not: a row with a collapsed seed is no spread of all.
    """
    from scipy.special import chdtri

    measured, freedom = np.asarray(variances), np.asarray(seeds) - 1
    if len(measured) < _FEWEST_ROWS:
        return np.zeros(measured.shape[1:]), np.zeros(measured.shape[1:])
    usual = (chdtri(freedom, 0.5) / freedom).reshape(-1, *[1] * (measured.ndim - 1))
    far = _FAR * np.median(measured / usual, axis=0)
    return np.average(np.minimum(measured, far), axis=0, weights=freedom), far


def moderate(variance: Variance, pooled: Variance) -> Variance:
    """Return the moderated variance of one seed's score; numbers or arrays."""
    return np.maximum(variance, _ROW_WEIGHT * variance + (1 - _ROW_WEIGHT) * pooled)


def rows_like(variance: float, pool: Pool) -> int:
    """Return how many rows tell of a row's spread: those of the pool, or itself alone where it is far wilder."""
    return 1 if variance > pool.far else pool.rows


def freedom_of(seeds: float, rows: int) -> float:
    """Return the degrees of freedom of a moderated variance of so many seeds, in a table of so many rows.

    Fewer than rows that vary alike would give it (by Satterthwaite 1946, 2.7 for one of 3 rows and 7 of 12), and fewer
    still for two seeds, which hardly show that a row is unlike the others.
    """
    row_freedom = seeds - 1
    lent = min(_MOST_LENT, (rows - 1) / 2) if rows >= _FEWEST_ROWS else 0.0
    return row_freedom + lent * (row_freedom - 0.5)

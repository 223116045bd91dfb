"""How much the seeds of a row vary, with what the other rows of its table say of it.

Few seeds tell little of their own spread: far out in the tails, where many comparisons of a table are made, Student's t
of 2 degrees of freedom is ten times as wide as that of 20. Rows of one table vary alike, though not equally. So a row's
variance is moderated: a quarter its own and three quarters the mean of all rows, as is done for the many genes of few
samples (Smyth 2004), with a fixed weight, for the rows of a table are too few to tell one. It is never less than its
own, so that a row of wilder seeds than the others keeps them; one that does not depend on its seed at all is taken to
vary too, which errs on the safe side. `scripts/calibrate_statistics.py` shows by simulation how often this errs, with
rows alike and unlike.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

_OWN_WEIGHT = 0.25
# degrees of freedom that other rows lend for one of a row's own, at most: more would trust that rows are alike
_MOST_LENT = 3.0
_FEWEST_ROWS = 3

Variance = TypeVar("Variance", float, np.ndarray)


class Pool(NamedTuple):
    """What the rows of a table have in common.

    Attributes:
        variance: of one seed's score, the mean over rows weighted by their degrees of freedom.
        rows: how many there are.
    """

    variance: float
    rows: int

    def scaled(self, factor: float) -> "Pool":
        """Return it for scores in another unit."""
        return self._replace(variance=self.variance * factor**2)


# of a row that no others are known beside
ALONE = Pool(0.0, 1)


def pool_rows(rows: Iterable[np.ndarray]) -> Pool:
    """Return what rows have in common, each (1 + draws, seeds) of two seeds or more; two rows alone are not pooled."""
    scores = [row[0] for row in rows]
    if len(scores) < _FEWEST_ROWS:
        return ALONE
    variance = pooled_variance([row.var(ddof=1) for row in scores], [len(row) for row in scores])
    return Pool(float(variance), len(scores))


def pooled_variance(variances: Sequence[Any], seeds: Sequence[int]) -> np.ndarray:
    """Return the mean of variances of rows, numbers or arrays, weighted by their degrees of freedom; 0 of two rows."""
    mean = np.average(variances, axis=0, weights=[number - 1 for number in seeds])
    return mean if len(variances) >= _FEWEST_ROWS else np.zeros_like(mean)


def moderate(own: Variance, pooled: Variance) -> Variance:
    """Return the moderated variance of one seed's score; numbers or arrays."""
    return np.maximum(own, _OWN_WEIGHT * own + (1 - _OWN_WEIGHT) * pooled)


def freedom_of(seeds: float, rows: int) -> float:
    """Return the degrees of freedom of a moderated variance of so many seeds, in a table of so many rows.

    Fewer than rows that vary alike would give it (by Satterthwaite 1946, 2.7 for one of 3 rows and 7 of 12), and fewer
    still for two seeds, which hardly show that a row is unlike the others.
    """
    own = seeds - 1
    lent = min(_MOST_LENT, (rows - 1) / 2) if rows >= _FEWEST_ROWS else 0.0
    return own + lent * (own - 0.5)

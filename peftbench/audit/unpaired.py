"""How sure a score is of which only the mean over the examples is known, and over how many examples it is."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np

from peftbench.errors import UserError

_MOST_EXAMPLES = 100_000


def standard_errors(where: str, scores: np.ndarray, examples: int, sd: np.ndarray | None = None) -> np.ndarray:
    """Return how far each score is off by the choice of examples: sd / √n, or that of a share of right answers.

    Args:
        where: the source, for errors.
        scores: (runs,). examples: n. sd: (runs,), standard deviation over the examples where it is reported.

    Raises UserError for scores that are no shares and come without a standard deviation, and where that is 0 or less.
    """
    if examples < 1:
        raise UserError(f"{where}: {examples} examples: it takes 1 at least")
    if sd is not None:
        if (sd <= 0).any():
            raise UserError(f"{where}: sd must be above 0")
        return sd / np.sqrt(examples)
    if ((scores < 0) | (scores > 1)).any():
        raise UserError(
            f"{where}: a score is not between 0 and 1, so no share of right answers, and nothing says how much it"
            " varies over the examples"
        )
    # a share of 0 or 1 would be without any doubt: Agresti & Coull (1998) add two right and two wrong answers
    smoothed = (scores * examples + 2) / (examples + 4)
    return np.sqrt(smoothed * (1 - smoothed) / (examples + 4))


def count_examples(scores: Sequence[float]) -> int | None:
    """Return the least number of examples of which all scores are whole shares; None where they do not tell.

    Shares that were rounded to decimals do not: their denominators are powers of ten.
    """
    count = 1
    for score in scores:
        share = Fraction(score).limit_denominator(_MOST_EXAMPLES)
        if abs(float(share) - score) > 4 * np.spacing(max(abs(score), 0.5)):
            return None
        count = lcm(count, share.denominator)
        if count > _MOST_EXAMPLES:
            return None
    return None if 10**9 % count == 0 else count

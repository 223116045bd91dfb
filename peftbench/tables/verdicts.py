"""What a measured difference of two rows comes to, and what it would take where it tells nothing.

Three verdicts, of one interval: better (or lower) by at least its near end; not different by more than δ, where all of
it lies within ± δ (two one-sided tests: Schuirmann 1987); and cannot be told. What that would take is worked out for a
true difference as large as the measured one and a chance of 80 %: the interval's half-width and what the estimate
itself may be off must then leave a margin to 0, or to δ.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from peftbench.tables.pooling import UNPOOLED, Pool, freedom_of, rows_like
from peftbench.tables.statistics import (
    Interval,
    common_part,
    degrees_of_freedom,
    over_seeds,
    seeds_variance,
    unshared_variance,
)
from peftbench.tables.table import Pair

BETTER, LOWER, SAME, OPEN = "better", "lower", "not different", "cannot be told"
# in points, what is no difference unless a table says otherwise
DELTA = 1.0
# in points: what tells less takes more examples than can be counted
LEAST_DELTA = 0.001
# of a chance of 80 % to be no further off to one side, and to either
POWER_Z, _BOTH_SIDES_Z = 0.8416, 1.2816
_MOST_SEEDS = 100_000
_FUTILE = 0.1
# of δ: smaller differences may be missed to either side
_NEARLY_EQUAL = 0.15


def verdict(low: float | None, high: float | None, delta: float) -> str:
    """Return the verdict on a difference measured to lie in low … high."""
    if low is None or high is None:
        return OPEN
    if low > 0:
        return BETTER
    if high < 0:
        return LOWER
    return SAME if -delta < low and high < delta else OPEN


def in_words(pair: Pair, delta: float) -> str:
    """Write the verdict on a pair: `better by at least 1.2 points`, `cannot be told: about 7 seeds would …`."""
    decision = pair.verdict or verdict(pair.low, pair.high, delta)
    if decision == BETTER:
        return f"better by {bound(pair.low)} points"
    if decision == LOWER:
        return f"lower by {bound(pair.high)} points"
    if decision == SAME:
        return f"not different by more than {points(delta)}"
    return f"{OPEN}: {what_would_decide(pair)}" if what_would_decide(pair) else OPEN


def bound(end: float | None) -> str:
    """Write the end of an interval that is nearer to 0, in tenths of a point: `at least 1.2`, `at least 0.03`."""
    size = abs(end or 0.0)
    digits = 1 if size >= 0.1 else max(1, int(np.ceil(-np.log10(size)))) if size > 0 else 1  # of what is below, one
    return f"at least {np.floor(size * 10**digits + 1e-9) / 10**digits:.{digits}f}"


def what_would_decide(pair: Pair) -> str:
    """Say what it takes to tell a pair that cannot be told; empty where that is not known."""
    if pair.low is None or (pair.single and pair.needs_examples is None):
        return "each needs two seeds"
    if pair.needs_seeds is not None:
        return f"about {pair.needs_seeds:,} seeds each would decide"
    if pair.single and pair.needs_examples is not None:
        return f"about {_rounded(pair.needs_examples):,} examples would decide, if seeds did not matter"
    if (examples := examples_that_would_decide(pair)) is not None:
        return f"no number of seeds would decide on these examples, many would on about {examples:,}"
    return ""


def examples_that_would_decide(pair: Pair) -> int | None:
    """Return on how many examples many seeds would tell a pair that no number of them tells on those there are."""
    if pair.low is None or pair.single or pair.needs_seeds is not None or pair.needs_examples is None:
        return None
    return _rounded(pair.needs_examples)


def _rounded(examples: int) -> int:
    return int(float(f"{examples:.2g}"))


def points(delta: float) -> str:
    """Write a number of points."""
    return f"{delta:g} point{'' if delta == 1 else 's'}"


class DifferenceVariance(NamedTuple):
    """What makes a difference of two rows' means uncertain, as variances.

    Attributes:
        examples: of what all seeds have in common, over these examples.
        row_variance, other_variance: of one seed's score, over the seeds of each row.
        rows: how many tell of these.
    """

    examples: float
    row_variance: float
    other_variance: float
    rows: int = 1

    def detectable(self, seeds: float, confidence: float) -> float:
        """Return the difference that is told from 0 with a chance of 80 %, by so many seeds of each row."""
        of_seeds = (self.row_variance + self.other_variance) / seeds
        return self.half_width(seeds, confidence) + POWER_Z * float(np.sqrt(self.examples + of_seeds))

    def equivalence(self, seeds: float, confidence: float) -> float:
        """Return the δ within which equal rows are shown to be with a chance of 80 %, by so many seeds of each row."""
        of_seeds = (self.row_variance + self.other_variance) / seeds
        return self.half_width(seeds, confidence) + _BOTH_SIDES_Z * float(np.sqrt(self.examples + of_seeds))

    def tells(self, margin: float, seeds: float, confidence: float, both_sides: bool = False) -> bool:
        """Tell whether so many seeds of each row do with a chance of 80 %; `margin` and `both_sides` as for `needs`."""
        power = _BOTH_SIDES_Z if both_sides else POWER_Z
        width = margin - power * float(np.sqrt(self.examples + (self.row_variance + self.other_variance) / seeds))
        return width > 0 and not self._is_inside(width, seeds, confidence)

    def half_width(self, seeds: float, confidence: float) -> float:
        """Return half the width of the difference's interval: that of a normal and a t variable added."""
        low = self._normal_half_width(seeds, confidence)
        if self.row_variance + self.other_variance == 0 or np.isinf(seeds):
            return low
        high = 2 * low
        while self._is_inside(high, seeds, confidence):
            low, high = high, 2 * high
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (middle, high) if self._is_inside(middle, seeds, confidence) else (low, middle)
        return high

    def _normal_half_width(self, seeds: float, confidence: float) -> float:
        from scipy.special import ndtri

        variance = self.examples + (self.row_variance + self.other_variance) / seeds
        return -float(ndtri((1 - confidence) / 2) * np.sqrt(variance))

    def _is_inside(self, width: float, seeds: float, confidence: float) -> bool:
        """Tell whether `width` is less than `half_width`."""
        from scipy.special import stdtr

        examples, of_seeds = np.sqrt(self.examples), np.sqrt((self.row_variance + self.other_variance) / seeds)
        if of_seeds == 0:
            return width < self._normal_half_width(seeds, confidence)
        freedom = degrees_of_freedom(np.array([self.row_variance, self.other_variance]), freedom_of(seeds, self.rows))
        # the integral over the normal part as a sum, as fine as the other part is wide beside it
        step = float(np.clip(of_seeds / max(examples, 1e-300) / 2, 0.02, 0.25))
        points = np.arange(-6, 6, step)
        weights = step * np.exp(-(points**2) / 2) / np.sqrt(2 * np.pi)
        return float(weights @ stdtr(freedom, (examples * points - width) / of_seeds)) > (1 - confidence) / 2


def spread_of(row_draws: np.ndarray, other_draws: np.ndarray, pool: Pool = UNPOOLED) -> DifferenceVariance:
    """Return the spread of two rows' difference; draws as for `statistics.difference_interval`, of two seeds each.

    Scores of seeds vary by what single runs vary by over examples at least, though a few may be equal by chance.
    """
    deviations = over_seeds(row_draws) - over_seeds(other_draws)
    unshared = [unshared_variance(row) for row in (row_draws, other_draws)]
    common = common_part(deviations[1:] - deviations[0], sum(unshared))
    row_variance, other_variance = (
        row.shape[1] * max(seeds_variance(row, pool), of_row)
        for row, of_row in zip((row_draws, other_draws), unshared, strict=True)
    )
    rows = min(rows_like(float(row[0].var(ddof=1)), pool) for row in (row_draws, other_draws))
    return DifferenceVariance(float(common.var()), row_variance, other_variance, rows)


def is_futile(
    spread: DifferenceVariance, difference: Interval, seeds: Sequence[int], confidence: float, delta: float
) -> bool:
    """Tell whether endless seeds would hardly tell a difference: with a chance below 10 %, by what is measured so far.

    The examples stay, so that the difference itself moves by no more than the seeds leave open (stochastic curtailment
    by predictive power: Spiegelhalter, Freedman & Blackburn 1986). `seeds` of the two rows, two or more each.
    """
    from scipy.special import stdtr

    scale = float(np.sqrt(spread.row_variance / seeds[0] + spread.other_variance / seeds[1]))
    if scale == 0:  # the interval stays as it is
        return verdict(difference.low, difference.high, delta) == OPEN
    width = spread.half_width(np.inf, confidence)
    ends = np.array([-width, width - delta, delta - width, width])
    low, same_low, same_high, high = stdtr(freedom_of(min(seeds), spread.rows), (ends - difference.estimate) / scale)
    return bool(low + (1 - high) + max(0.0, same_high - same_low) < _FUTILE)


class Needs(NamedTuple):
    """What would decide: `seeds` of each row; None where none would, but endless ones on so many `examples`."""

    seeds: int | None
    examples: int | None


def needs_as_measured(
    spread: DifferenceVariance, difference: float, delta: float, confidence: float, examples: int
) -> Needs:
    """Return what it takes to tell, with a chance of 80 %, a difference that truly is what was measured."""
    size = abs(difference)
    # one of nearly 0 must stay within δ to both sides
    return needs(spread, max(size, delta - size), confidence, examples, both_sides=size < _NEARLY_EQUAL * delta)


def needs(
    spread: DifferenceVariance, margin: float, confidence: float, examples: int, both_sides: bool = False
) -> Needs:
    """Return what it takes to decide on a difference with a power of 80 %.

    Args:
        spread: as measured on `examples` examples, in the same unit as `margin`.
        margin: how far the true difference is from 0, or from δ, whichever is further.
        confidence: of the interval. both_sides: whether that is the margin to both sides.
    """
    from scipy.special import ndtri

    at_best = (spread.equivalence if both_sides else spread.detectable)(np.inf, confidence)
    if at_best >= margin:
        return Needs(None, int(np.ceil(examples * (at_best / margin) ** 2)) if margin > 0 else None)
    # so many would do if their spread were known for certain, which makes it the fewest
    power = _BOTH_SIDES_Z if both_sides else POWER_Z
    widths = at_best / np.sqrt(spread.examples) if spread.examples > 0 else power - float(ndtri((1 - confidence) / 2))
    known = (spread.row_variance + spread.other_variance) / ((margin / widths) ** 2 - spread.examples)
    of_more_examples = Needs(None, int(np.ceil(examples * (at_best / margin) ** 2)) + examples)
    if known > _MOST_SEEDS:
        return of_more_examples
    lower = max(1, int(np.ceil(known)) - 1)
    upper, step = lower + 1, 1
    while not spread.tells(margin, upper, confidence, both_sides):
        if upper > _MOST_SEEDS:  # hardly less margin than endless ones need
            return of_more_examples
        lower, upper, step = upper, upper + 2 * step, 2 * step
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if spread.tells(margin, middle, confidence, both_sides) else (middle, upper)
    return Needs(upper, None)

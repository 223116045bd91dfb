"""Successive halving: many candidates are trained a little, the better half further, a few of them in full.

Jamieson & Talwalkar 2016 ("Non-stochastic best arm identification", §2) with training steps as the resource. A stage
costs about the same as the one before it, and the last one is on several seeds, for what decides is the comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

# of a candidate's full training, what a stage may be: in steps this wide, a call that goes on finds the same ones
GRID = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
# the most that the first two stages take, and the least that says anything
FRACTIONS = (1 / 4, 1 / 2)
LEAST = GRID[0]
# optimizer steps: fewer say nothing
LEAST_STEPS = 8
# of the budget: what each of the first two stages may take
SHARE = 1 / 4
FINALISTS = 4


@dataclass(frozen=True)
class Cost:
    """What a run of a candidate takes in seconds: its full training, and what comes with a run of any length."""

    training: float
    fixed: float

    def of(self, fraction: float) -> float:
        """Return the seconds of a run over a fraction of the training."""
        return self.fixed + fraction * self.training


@dataclass(frozen=True)
class Stage:
    """Who is trained how far; `fraction` is of the full training, 0 < fraction ≤ 1."""

    labels: list[str]
    fraction: float

    def steps(self, total: int) -> int:
        """Return the optimizer steps of a candidate whose full training takes `total`."""
        return min(total, max(LEAST_STEPS, round(self.fraction * total)))


def first_stage(costs: Mapping[str, Cost], budget: float = inf) -> Stage:
    """Return the stage of all candidates, or of the first ones where the budget is too short for all.

    Args:
        costs: by candidate, the likeliest first. budget: seconds for everything.
    """
    labels = list(costs)
    while True:
        fraction = _affordable(labels, costs, budget * SHARE, FRACTIONS[0])
        if fraction >= LEAST or len(labels) == 1:
            return Stage(labels, max(fraction, LEAST))
        labels.pop()


def second_stage(
    ranked: Sequence[str], before: Stage, costs: Mapping[str, Cost], budget: float = inf, overhead: float = 0.0
) -> Stage | None:
    """Return the stage of the better half; None where the budget brings it no further than the one before.

    Args:
        ranked: the candidates that are left, the best first.
        before: the stage they were in. budget: seconds for everything.
        overhead: seconds of a run beside its costs. It decides whether there is a stage, not how long: a call that
            goes on has less of it.
    """
    labels = list(ranked[: ceil(len(ranked) / 2)])
    fraction = _affordable(labels, costs, budget * SHARE, FRACTIONS[1])
    takes = sum(costs[label].of(fraction) + overhead for label in labels)
    further = fraction > before.fraction and len(labels) > FINALISTS and takes <= budget * SHARE
    return Stage(labels, fraction) if further else None


def finalists(ranked: Sequence[str], costs: Mapping[str, Cost], left: float = inf) -> list[str]:
    """Return who is trained in full: of the best as many as there is time for on two seeds, one to FINALISTS.

    Args:
        ranked: the candidates that are left, the best first. left: seconds.
    """
    labels = list(ranked[: max(2, min(FINALISTS, ceil(len(ranked) / 2)))])
    while len(labels) > 1 and 2 * sum(costs[label].of(1) for label in labels) > left:
        labels.pop()
    return labels


def _affordable(labels: Sequence[str], costs: Mapping[str, Cost], seconds: float, most: float) -> float:
    training = sum(costs[label].training for label in labels)
    fixed = sum(costs[label].fixed for label in labels)
    affordable = min(most, (seconds - fixed) / training) if training else most
    return max((fraction for fraction in GRID if fraction <= affordable), default=0.0)

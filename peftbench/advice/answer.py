"""The answer that a comparison gives to a question: the highest score within the limits, its ties, the Pareto front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from peftbench.advice.comparison import Candidate, Comparison
from peftbench.advice.limits import Limits, exceeded, figures, unsure
from peftbench.tables.table import Cell, Pair

# what makes a candidate worse the more it is; an estimate, and not certain, is what the front is drawn by
_COSTS = ("share", "latency", "memory")


@dataclass(frozen=True)
class Answer:
    """What a comparison says.

    Attributes:
        comparison: that it is read off. candidates: those the question is about.
        best: the one with the highest score of those within the limits; None where there is none.
        ties: those within the limits that cannot be told from it, cheapest first, with their difference to it.
        lower: those that certainly score lower, likewise. not_compared: labels of the others within the limits.
        front: labels of those within the limits that none of the others surpasses in score, share, latency and memory.
        over: label → figures over their limit, each with what it is. lacking: label → limited figures it lacks.
        unsure: label → figures within their limit whose interval reaches over it.
        unchecked: limited figures that none of the candidates has.
        costs: label → what it costs, see `limits.figures`.
    """

    comparison: Comparison
    candidates: list[Candidate]
    best: Candidate | None
    costs: dict[str, dict[str, Cell]]
    ties: list[Pair] = field(default_factory=list)
    lower: list[Pair] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    front: list[str] = field(default_factory=list)
    over: dict[str, dict[str, str]] = field(default_factory=dict)
    lacking: dict[str, list[str]] = field(default_factory=dict)
    unsure: dict[str, list[str]] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)

    @property
    def within(self) -> list[Candidate]:
        """The candidates within the limits."""
        return [one for one in self.candidates if one.label not in self.over and one.label not in self.lacking]

    @property
    def cheapest(self) -> Candidate | None:
        """The tie that trains the fewest parameters, where it trains fewer than the best; else None."""
        if not self.ties or self.best is None:
            return None
        label = self.ties[0].row
        if _cost(self.costs[label], "share") >= _cost(self.costs[self.best.label], "share"):
            return None
        return next(candidate for candidate in self.candidates if candidate.label == label)


def answer(comparison: Comparison, limits: Limits, candidates: Sequence[Candidate] | None = None) -> Answer:
    """Return what a comparison answers within the limits, from all of its candidates or from those given.

    A figure that no candidate has cannot be checked; where some have it, the others are left out.
    """
    candidates = [one for one in candidates or comparison.candidates if one.cells]
    costs = {one.label: figures(one, comparison, limits.tasks) for one in candidates}
    known = {key for of_one in costs.values() for key in of_one}
    over = {label: found for label, of_one in costs.items() if (found := exceeded(of_one, limits))}
    lacking = {
        label: unknown
        for label, of_one in costs.items()
        if (unknown := [key for key in limits.by_figure if key in known and key not in of_one])
    }
    fitting = [one for one in candidates if one.label not in over and one.label not in lacking]
    within = [one for one in fitting if _score(one, comparison) is not None]
    best = max(within, key=lambda one: (_score(one, comparison), -_cost(costs[one.label], "share")), default=None)
    others = [one for one in sorted(within, key=lambda one: _cost(costs[one.label], "share")) if one is not best]
    pairs = [comparison.difference(one.label, best.label) for one in others] if best else []
    compared = {pair.row: pair for pair in pairs if pair is not None and pair.low is not None}
    return Answer(
        comparison=comparison,
        candidates=candidates,
        best=best,
        costs=costs,
        ties=[pair for pair in compared.values() if not _lower(pair)],
        lower=[pair for pair in compared.values() if _lower(pair)],
        not_compared=[one.label for one in others if one.label not in compared],
        front=_front(within, comparison, costs),
        over=over,
        lacking=lacking,
        unsure={label: near for label, of_one in costs.items() if (near := unsure(of_one, limits))},
        unchecked=[key for key in limits.by_figure if key not in known],
    )


def _lower(pair: Pair) -> bool:
    return pair.high is not None and pair.high < 0


def _score(candidate: Candidate, comparison: Comparison) -> float | None:
    cell = candidate.cells.get(comparison.primary)
    return None if cell is None else cell.value


def _cost(of_one: Mapping[str, Cell], key: str) -> float:
    cell = of_one.get(key)
    return float("inf") if cell is None or cell.value is None else cell.value


def _front(within: Sequence[Candidate], comparison: Comparison, costs: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return the labels of the Pareto front, by estimates; costs that a candidate lacks surpass none."""
    places = {
        one.label: [-(_score(one, comparison) or 0.0), *(_cost(costs[one.label], key) for key in _COSTS)]
        for one in within
    }

    def surpassed(label: str) -> bool:
        mine = places[label]
        return any(
            all(theirs <= own for theirs, own in zip(other, mine, strict=True)) and other != mine
            for other in places.values()
        )

    return [label for label in places if not surpassed(label)]

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
        return [
            candidate
            for candidate in self.candidates
            if candidate.label not in self.over and candidate.label not in self.lacking
        ]

    @property
    def cheapest(self) -> Candidate | None:
        """The tie that trains the fewest parameters, where it trains fewer than the best; else None."""
        label = self.cheaper(self.ties[0].row) if self.ties else None
        return next((candidate for candidate in self.candidates if candidate.label == label), None)

    def cheaper(self, label: str) -> str | None:
        """Return a candidate's label where it trains fewer parameters than the best, else None."""
        if self.best and _cost(self.costs[label], "share") < _cost(self.costs[self.best.label], "share"):
            return label
        return None


def answer(comparison: Comparison, limits: Limits, candidates: Sequence[Candidate] | None = None) -> Answer:
    """Return what a comparison answers within the limits, from all of its candidates or from those given.

    A figure that no candidate has cannot be checked; where some have it, the others are left out.
    """
    candidates = [candidate for candidate in candidates or comparison.candidates if candidate.cells]
    costs = {candidate.label: figures(candidate, comparison, limits.tasks) for candidate in candidates}
    known = {key for candidate_costs in costs.values() for key in candidate_costs}
    over = {label: found for label, candidate_costs in costs.items() if (found := exceeded(candidate_costs, limits))}
    lacking = {
        label: unknown
        for label, candidate_costs in costs.items()
        if (unknown := [key for key in limits.by_figure if key in known and key not in candidate_costs])
    }
    fitting = [candidate for candidate in candidates if candidate.label not in over and candidate.label not in lacking]
    within = [candidate for candidate in fitting if _score(candidate, comparison) is not None]
    best = max(
        within,
        key=lambda candidate: (_score(candidate, comparison), -_cost(costs[candidate.label], "share")),
        default=None,
    )
    others = [
        candidate
        for candidate in sorted(within, key=lambda candidate: _cost(costs[candidate.label], "share"))
        if candidate is not best
    ]
    pairs = [comparison.difference(candidate.label, best.label) for candidate in others] if best else []
    compared = {pair.row: pair for pair in pairs if pair is not None and pair.low is not None}
    return Answer(
        comparison=comparison,
        candidates=candidates,
        best=best,
        costs=costs,
        ties=[pair for pair in compared.values() if not _lower(pair)],
        lower=[pair for pair in compared.values() if _lower(pair)],
        not_compared=[candidate.label for candidate in others if candidate.label not in compared],
        front=_front(within, comparison, costs),
        over=over,
        lacking=lacking,
        unsure={label: near for label, candidate_costs in costs.items() if (near := unsure(candidate_costs, limits))},
        unchecked=[key for key in limits.by_figure if key not in known],
    )


def _lower(pair: Pair) -> bool:
    return pair.high is not None and pair.high < 0


def _score(candidate: Candidate, comparison: Comparison) -> float | None:
    cell = candidate.cells.get(comparison.primary)
    return None if cell is None else cell.value


def _cost(costs: Mapping[str, Cell], key: str) -> float:
    cell = costs.get(key)
    return float("inf") if cell is None or cell.value is None else cell.value


def _front(within: Sequence[Candidate], comparison: Comparison, costs: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Return the labels of the Pareto front, by estimates; costs that a candidate lacks surpass none."""
    places = {
        candidate.label: [
            -(_score(candidate, comparison) or 0.0),
            *(_cost(costs[candidate.label], key) for key in _COSTS),
        ]
        for candidate in within
    }

    def surpassed(label: str) -> bool:
        place = places[label]
        return any(
            all(other_value <= value for other_value, value in zip(other, place, strict=True)) and other != place
            for other in places.values()
        )

    return [label for label in places if not surpassed(label)]

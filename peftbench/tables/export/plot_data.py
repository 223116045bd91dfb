"""What a table's plots show: score against cost with the Pareto front, and learning curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from peftbench.tables.table import Cell, Column, Row, Table

# Okabe and Ito's colours without black and yellow, which vanish on dark and on white
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#808080")
COSTS = ("share", "latency")
CEILING = "human raters, half against half"


@dataclass(frozen=True)
class Point:
    """A row in a plot of score against cost: `row` counts the table's rows from 0, the rest is in column units.

    cost_low, cost_high, score_low, score_high: the intervals of the two; a figure without any is its own.
    """

    row: int
    label: str
    cost: float
    score: float
    cost_low: float
    cost_high: float
    score_low: float
    score_high: float


@dataclass(frozen=True)
class Scatter:
    """Score against one cost.

    Attributes:
        cost, score: the columns of the two axes.
        points: rows that have both figures, in the table's order. front: indices into them, by rising cost.
        ceiling: the score of human judges, None where it is not known.
        log: whether the cost axis is logarithmic. zero: the cost at which that axis shows a cost of 0, if any.
        shown: the lowest and the highest score that the plot shows; intervals far wider than the others run out of it.
    """

    cost: Column
    score: Column
    points: list[Point]
    front: list[int]
    ceiling: float | None
    log: bool
    zero: float | None
    shown: tuple[float, float]

    def position(self, cost: float) -> float:
        """Return where on the cost axis `cost` lies, which differs for a 0 on a logarithmic axis only."""
        return cost if cost > 0 or self.zero is None else self.zero


@dataclass(frozen=True)
class Curve:
    """A row's learning curve: (epoch, mean, lowest, highest, runs), over the used runs that reached the epoch."""

    row: int
    label: str
    epochs: list[tuple[int, float, float, float, int]]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which (cost, score) points no other beats, by rising cost.

    A point is beaten by one that costs no more and scores no less, and is better in at least one of the two;
    equal points are both kept.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front


def scatter(table: Table, key: str) -> Scatter:
    """Collect score against the cost `key` from the rows that have both figures."""
    points = []
    for index, row in enumerate(table.rows):
        cost, score = _figure(row, key), _figure(row, table.primary)
        if cost is not None and score is not None:
            points.append(Point(index, row.label, cost[0], score[0], *cost[1:], *score[1:]))
    above = [point.cost for point in points if point.cost > 0]
    log = bool(above) and max(above) > 10 * min(above) and min(point.cost for point in points) >= 0
    return Scatter(
        cost=column(table, key),
        score=column(table, table.primary),
        points=points,
        front=pareto_front([(point.cost, point.score) for point in points]),
        ceiling=table.ceiling,
        log=log,
        zero=min(above) / 4 if log and len(above) < len(points) else None,
        shown=_shown(points, table.ceiling),
    )


def _shown(points: Sequence[Point], ceiling: float | None) -> tuple[float, float]:
    """Return a range with all scores in it, and of an interval no more than three times the median half-width."""
    if not points:
        return 0.0, 0.0
    reach = 3 * median(point.score_high - point.score_low for point in points) / 2
    ends = [ceiling] if ceiling is not None else []
    ends += [end for p in points for end in (max(p.score_low, p.score - reach), min(p.score_high, p.score + reach))]
    return min(ends), max(ends)


def curves(table: Table) -> list[Curve]:
    """Collect the learning curves of the rows that have any: the primary validation metric in its column's unit."""
    factor = 100 if column(table, table.primary).unit == "%" else 1
    found = []
    for index, row in enumerate(table.rows):
        scores: dict[int, list[float]] = {}
        for run in row.runs:
            # A resumed run may have an epoch twice: the later entry stands.
            history = {entry["epoch"]: entry.get("validation", {}).get(table.primary) for entry in run.history}
            for epoch, score in history.items() if run.used else ():
                if score is not None and math.isfinite(score):
                    scores.setdefault(epoch, []).append(factor * score)
        if scores:
            epochs = [(epoch, sum(of) / len(of), min(of), max(of), len(of)) for epoch, of in sorted(scores.items())]
            found.append(Curve(index, row.label, epochs))
    return found


def tuning_curves(table: Table) -> list[Curve]:
    """Collect the expected best of 1, 2 … trials of the rows that were tuned, trials in the place of epochs."""
    places = {row.label: index for index, row in enumerate(table.rows)}
    found = []
    for tuned in table.tuning:
        points = [(trials, best, best, best, 1) for trials, best in enumerate(tuned.expected, start=1)]
        if points:
            found.append(Curve(places[tuned.row], tuned.row, points))
    return found


def intervals(table: Table) -> list[Point]:
    """Collect the scores with their intervals where no row has a cost to plot them against; the cost is the place."""
    if any(_figure(row, key) for row in table.rows for key in COSTS):
        return []
    return [
        Point(index, row.label, index, score[0], index, index, *score[1:])
        for index, row in enumerate(table.rows)
        if (score := _figure(row, table.primary)) is not None and score[1] < score[2]
    ]


def column(table: Table, key: str) -> Column:
    """Return the column of that key, or a bare one of that name where the table has none."""
    return next((column for column in [*table.all_columns, *table.columns] if column.key == key), Column(key, key))


def _figure(row: Row, key: str) -> tuple[float, float, float] | None:
    """Return a figure with the ends of its interval."""
    cell = row.cells.get(key, Cell())
    if cell.value is None or not math.isfinite(cell.value):
        return None
    low, high = (cell.value if end is None or not math.isfinite(end) else end for end in (cell.low, cell.high))
    return cell.value, low, high

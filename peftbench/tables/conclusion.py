"""What a table comes to, in one sentence: the best row, and the cheapest that cannot be told from it."""

from collections.abc import Mapping, Sequence

from peftbench.tables.columns import COLUMNS
from peftbench.tables.scored import RowScores
from peftbench.tables.table import Column, Row, format_cell, format_interval

_DIFFERENCE = COLUMNS["difference"]


def conclude(rows: Sequence[Row], scored: Mapping[str, RowScores], primary: Column, alpha: float = 0.05) -> str:
    """Return the sentence under a table; empty where no row has a score.

    The best row is picked for being high, so each other one is compared with it as if every pair of rows were: all
    k (k − 1) / 2 comparisons together err in at most `alpha` of the cases. What a row costs is the number of
    parameters its method trains.
    """
    compared = [row for row in rows if row.label in scored and primary.key in row.cells]
    if not compared:
        return ""
    best = min(compared, key=lambda row: (-_value(row, primary.key), _cost(row)))
    if len(compared) == 1:
        return f"One row has a score, {best.label}: {_score(best, primary)}. There is none to compare it with."
    pairs = len(compared) * (len(compared) - 1) // 2
    equal, unknown = [], []
    for row in compared:
        if row is not best:
            difference = scored[row.label].difference(primary.key, scored[best.label], 1 - alpha / pairs)
            if difference is None or difference.low is None:
                unknown.append(row.label)
            elif not difference.excludes(0):
                equal.append((row, format_interval(difference, _DIFFERENCE)))
    head = f"Highest {primary.title}: {best.label}, {_score(best, primary)}"
    left_out = f" Not compared, for want of two seeds in common: {', '.join(unknown)}." if unknown else ""
    if len(unknown) == len(compared) - 1:
        return f"{head}, without two seeds in common with any other row: whether it is better cannot be told."
    cheaper = [(row, points) for row, points in equal if _cost(row) < _cost(best)]
    if cheaper:
        row, points = min(cheaper, key=lambda pair: (_cost(pair[0]), -_value(pair[0], primary.key)))
        rest = (
            f"the cheapest that cannot be told from it is {row.label}, {_score(row, primary)}"
            f" ({format_cell(row.cells['trained'], COLUMNS['trained'])} trained parameters against"
            f" {format_cell(best.cells['trained'], COLUMNS['trained'])}; difference {points} points,"
            f" 95 % for all {pairs} pairs of rows together)"
        )
    elif any(_cost(row) < _cost(best) for row in compared if row.label not in unknown):
        rest = f"every cheaper row scores lower, 95 % for all {pairs} pairs of rows together"
    else:
        rest = "and no row compared with it trains fewer parameters"
    return f"{head}; {rest}.{left_out}"


def _value(row: Row, key: str) -> float:
    value = row.cells[key].value
    return float("-inf") if value is None else value


def _cost(row: Row) -> float:
    """Return the method's trained parameters; a row that does not say is taken for the dearest."""
    cell = row.cells.get("trained")
    return float("inf") if cell is None or cell.value is None else cell.value


def _score(row: Row, column: Column) -> str:
    cell = row.cells[column.key]
    unit = f" {column.unit}" if column.unit else ""
    return f"{format_cell(cell, column)}{unit} ({cell.n} seed{'s' if cell.n > 1 else ''})"

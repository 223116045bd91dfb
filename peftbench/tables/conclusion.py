"""What a table comes to, in one sentence: the best row, and the cheapest that cannot be told from it."""

from collections.abc import Sequence

from peftbench.tables.columns import COLUMNS
from peftbench.tables.table import Column, Pair, Row, format_cell, format_interval
from peftbench.tables.verdicts import OPEN, in_words, what_would_decide

_DIFFERENCE = COLUMNS["difference"]


def conclude(rows: Sequence[Row], pairs: Sequence[Pair], primary: Column, delta: float, why: str) -> str:
    """Return the sentence under a table; empty where no row has a score.

    What a row costs is the number of parameters its method trains. `pairs` from `pairs.compare_pairs`, with `delta`.
    `why` rows are not compared, where they are not.
    """
    compared = [row for row in rows if primary.key in row.cells and row.cells[primary.key].value is not None]
    if not compared:
        return ""
    best = min(compared, key=lambda row: (-_value(row, primary.key), _cost(row)))
    if len(compared) == 1:
        return f"One row has a score, {best.label}: {_score(best, primary)}. There is none to compare it with."
    known = {(pair.row, pair.other): pair for pair in [*pairs, *(pair.reversed() for pair in pairs)]}
    all_pairs = len(compared) * (len(compared) - 1) // 2
    together = f"95 % for all {all_pairs} pairs of rows together" if all_pairs > 1 else "95 %"
    equal, unknown = [], []
    for row in compared:
        if row is not best:
            pair = known.get((row.label, best.label))
            if pair is None or pair.low is None or pair.high is None:
                unknown.append(row.label)
            elif pair.low <= 0 <= pair.high:
                equal.append((row, pair))
    head = f"Highest {primary.title}: {best.label}, {_score(best, primary)}"
    left_out = f" Not compared, {why}: {', '.join(unknown)}." if unknown else ""
    if len(unknown) == len(compared) - 1:
        return f"{head}, compared with no other row, {why}: whether it is better cannot be told."
    cheaper = [(row, pair) for row, pair in equal if _cost(row) < _cost(best)]
    if cheaper:
        row, pair = min(cheaper, key=lambda tie: (_cost(tie[0]), -_value(tie[0], primary.key)))
        more = what_would_decide(pair) if pair.verdict == OPEN else in_words(pair, delta)
        points = format_interval((pair.value, pair.low, pair.high), _DIFFERENCE)
        rest = (
            f"the cheapest that cannot be told from it is {row.label}, {_score(row, primary)}"
            f" ({format_cell(row.cells['trained'], COLUMNS['trained'])} trained parameters against"
            f" {format_cell(best.cells['trained'], COLUMNS['trained'])}; difference {points} points,"
            f" {together}{f'; {more}' if more else ''})"
        )
    elif any(_cost(row) < _cost(best) for row in compared if row.label not in unknown):
        rest = f"every cheaper row scores lower, {together}"
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

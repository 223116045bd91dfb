"""Verdicts on what is claimed, from measured intervals."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf

from peftbench.tables.columns import COLUMNS, SCORES
from peftbench.tables.scored import RowScores
from peftbench.tables.spec import ClaimSpec
from peftbench.tables.statistics import Interval
from peftbench.tables.table import Claim, Column, Row, format_interval

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
NOT_MEASURED = "not measured"
_RATIO = Column("ratio", "ratio", digits=3)


def judge(low: float | None, high: float | None, least: float, most: float) -> str:
    """Say whether a figure measured to lie in low … high agrees with the claim that it lies in least … most."""
    if low is None or high is None:
        return OPEN
    if low >= least and high <= most:
        return HOLDS
    return FAILS if high < least or low > most else OPEN


def judge_claim(claim: ClaimSpec, rows: Sequence[Row], scored: Mapping[str, RowScores], confidence: float) -> Claim:
    """Return the claim with what was measured and the verdict; `confidence` is that of each difference of scores."""
    cells = {row.label: row.cells.get(claim.column) for row in rows}
    if claim.ascending:
        measured, verdict = _ascending(claim, cells, scored, confidence)
    else:
        measured, verdict = _between(claim, cells)
    return Claim(claim.text, measured, verdict)


def _ascending(claim: ClaimSpec, cells: Mapping, scored: Mapping[str, RowScores], confidence: float) -> tuple[str, str]:
    steps: list[Interval] = []
    for lower, upper in pairwise(claim.ascending):
        if claim.column in SCORES:
            if lower not in scored or upper not in scored:
                return "", NOT_MEASURED
            step = scored[upper].difference(claim.column, scored[lower], confidence)
            if step is None:
                return "", NOT_MEASURED
            steps.append(step)
        else:
            below, above = cells[lower], cells[upper]
            if below is None or above is None or below.low is None or above.low is None:
                return "", NOT_MEASURED
            steps.append(Interval(above.value - below.value, above.low - below.high, above.high - below.low))
    measured = "; ".join(format_interval(step, COLUMNS[claim.column]) for step in steps)
    verdicts = {judge(step.low, step.high, 0, inf) for step in steps}
    return measured, FAILS if FAILS in verdicts else OPEN if OPEN in verdicts else HOLDS


def _between(claim: ClaimSpec, cells: Mapping) -> tuple[str, str]:
    cell, over = cells[claim.row], cells.get(claim.over)
    if cell is None or cell.value is None:
        return "", NOT_MEASURED
    interval, column = Interval(cell.value, cell.low, cell.high), COLUMNS[claim.column]
    if claim.over:
        if over is None or not over.value or not over.low or not over.high or cell.low is None:
            return "", NOT_MEASURED
        interval, column = Interval(cell.value / over.value, cell.low / over.high, cell.high / over.low), _RATIO
    return format_interval(interval, column), judge(interval.low, interval.high, *claim.between)

"""Verdicts on what is claimed, from measured intervals."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from peftbench.tables.columns import COLUMNS, SCORES
from peftbench.tables.spec import ClaimSpec
from peftbench.tables.statistics import Interval
from peftbench.tables.table import Claim, Row, format_interval

if TYPE_CHECKING:
    from peftbench.tables.build import Scored

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told"
NOT_MEASURED = "not measured"


def judge(low: float | None, high: float | None, least: float, most: float) -> str:
    """Say whether a figure measured to lie in low … high agrees with the claim that it lies in least … most."""
    if low is None or high is None:
        return OPEN
    if low >= least and high <= most:
        return HOLDS
    return FAILS if high < least or low > most else OPEN


def judge_claim(claim: ClaimSpec, rows: Sequence[Row], scored: Mapping[str, "Scored"]) -> Claim:
    """Return the claim with what was measured and the verdict."""
    cells = {row.label: row.cells.get(claim.column) for row in rows}
    if claim.ascending:
        measured, verdict = _ascending(claim, cells, scored)
    else:
        measured, verdict = _between(claim, cells)
    return Claim(claim.text, measured, verdict)


def _ascending(claim: ClaimSpec, cells: Mapping, scored: Mapping[str, "Scored"]) -> tuple[str, str]:
    steps: list[Interval] = []
    pairs = list(pairwise(claim.ascending))
    for lower, upper in pairs:
        if claim.column in SCORES:
            if lower not in scored or upper not in scored:
                return "", NOT_MEASURED
            step = scored[upper].difference(claim.column, scored[lower], 1 - 0.05 / len(pairs))
            if step is None:
                return "", NOT_MEASURED
            steps.append(step)
        else:
            below, above = cells[lower], cells[upper]
            if below is None or above is None or below.low is None or above.low is None:
                return "", NOT_MEASURED
            steps.append(Interval(above.value - below.value, above.low - below.high, above.high - below.low))
    measured = "; ".join(format_interval(step, COLUMNS[claim.column]) for step in steps)
    if all(step.low > 0 for step in steps):
        return measured, HOLDS
    return measured, FAILS if any(step.high < 0 for step in steps) else OPEN


def _between(claim: ClaimSpec, cells: Mapping) -> tuple[str, str]:
    cell, over = cells[claim.row], cells.get(claim.over)
    if cell is None or cell.value is None or cell.low is None:
        return "", NOT_MEASURED
    interval = Interval(cell.value, cell.low, cell.high)
    if claim.over:
        if over is None or not over.value or not over.low or not over.high:
            return "", NOT_MEASURED
        interval = Interval(cell.value / over.value, cell.low / over.high, cell.high / over.low)
    return format_interval(interval, COLUMNS[claim.column]), judge(interval.low, interval.high, *claim.between)

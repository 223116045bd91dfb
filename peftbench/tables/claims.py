"""Verdicts on what is claimed, from measured intervals."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import inf

from peftbench.tables.columns import COLUMNS, SCORES
from peftbench.tables.pairs import compare
from peftbench.tables.scored import RowScores
from peftbench.tables.simultaneous import Joint
from peftbench.tables.spec import ClaimSpec
from peftbench.tables.statistics import Interval
from peftbench.tables.table import Claim, Column, Row, format_interval
from peftbench.tables.verdicts import LOWER, OPEN, SAME, points, what_would_decide

HOLDS, FAILS = "holds", "does not hold"
NOT_MEASURED = "not measured"
_RATIO = Column("ratio", "ratio", digits=3)


def judge(low: float | None, high: float | None, least: float, most: float) -> str:
    """Say whether a figure measured to lie in low … high agrees with the claim that it lies in least … most."""
    if low is None or high is None:
        return OPEN
    if low >= least and high <= most:
        return HOLDS
    return FAILS if high < least or low > most else OPEN


def judge_claim(
    claim: ClaimSpec, rows: Sequence[Row], scored: Mapping[str, RowScores], joint: Joint, delta: float
) -> Claim:
    """Return the claim with what was measured and the verdict.

    `joint` says how differences of scores are made, `delta` in points what is no difference.
    """
    cells = {row.label: row.cells.get(claim.column) for row in rows}
    if not claim.ascending:
        return Claim(claim.text, *_between(claim, cells))
    if any((cell := cells[label]) is None or cell.value is None for label in claim.ascending):
        return Claim(claim.text, "", NOT_MEASURED)
    if claim.column in SCORES:
        return _ascending_scores(claim, scored, joint, delta)
    return Claim(claim.text, *_ascending(claim, cells))


def _ascending_scores(claim: ClaimSpec, scored: Mapping[str, RowScores], joint: Joint, delta: float) -> Claim:
    steps = [compare(upper, lower, claim.column, scored, joint, delta) for lower, upper in pairwise(claim.ascending)]
    pairs = [step for step in steps if step is not None]
    if len(pairs) < len(steps):
        return Claim(claim.text, "", NOT_MEASURED)
    measured = "; ".join(format_interval((pair.value, pair.low, pair.high), COLUMNS["difference"]) for pair in pairs)
    verdicts = {pair.verdict for pair in pairs}
    if LOWER in verdicts:
        return Claim(claim.text, measured, FAILS)
    if OPEN in verdicts:
        needs = "; ".join(dict.fromkeys(what_would_decide(pair) for pair in pairs if pair.verdict == OPEN))
        return Claim(claim.text, measured, OPEN, needs)
    return Claim(claim.text, measured, f"no difference of more than {points(delta)}" if SAME in verdicts else HOLDS)


def _ascending(claim: ClaimSpec, cells: Mapping) -> tuple[str, str]:
    steps: list[Interval] = []
    for lower, upper in pairwise(claim.ascending):
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

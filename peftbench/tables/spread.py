"""What the spread of a row's scores comes from: initialisation, order of batches, dropout, and the examples.

One source of chance at a time has other seeds while the others keep theirs (analysis of variance with one factor, as
Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks", §3, and Dodge et al. 2020, §4, do),
so the standard deviation over those runs is that source's. Its interval is the chi-squared one, for normal scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from peftbench.tables.collect import RunState
from peftbench.tables.columns import POINTS
from peftbench.tables.evidence import read_evidence
from peftbench.tables.scored import RowScores

SOURCES = ("init", "order", "dropout")


@dataclass(frozen=True)
class Deviation:
    """A standard deviation of scores in points, with its 95 % interval; of how many runs, fewer than 2 have none.

    A deviation of 0 has no interval: normal scores are never equal, so that it tells nothing of others.
    """

    runs: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SpreadSources:
    """What a row's spread comes from.

    Attributes:
        label: the row's. sources: by source, that alone.
        all_at_once: over the row's seeds, in which everything differs.
        examples: of one run over the evaluation examples, in points, by the bootstrap; None without a run.
    """

    label: str
    sources: dict[str, Deviation]
    all_at_once: Deviation
    examples: float | None


def deviation(scores: Sequence[float]) -> Deviation:
    """Return the standard deviation of scores (as recorded, 0 … 1) in points."""
    from scipy.special import chdtri

    if len(scores) < 2:
        return Deviation(len(scores))
    freedom, value = len(scores) - 1, POINTS * stdev(scores)
    if value == 0:
        return Deviation(len(scores), value)
    low, high = (value * sqrt(freedom / float(chdtri(freedom, tail))) for tail in (0.025, 0.975))
    return Deviation(len(scores), value, low, high)


def explain(
    labels: Sequence[str],
    found: Sequence[RunState],
    varied: Mapping[tuple[str, str], Sequence[RunState]],
    metric: str,
) -> list[SpreadSources]:
    """Return the spread of each row.

    Args:
        labels: of the rows. found: the runs of the table.
        varied: by row and source, the runs in which that source alone has other seeds.
        metric: the score that rows are judged by.
    """
    shown, evidence = read_evidence([run for run in found if run.planned.label in labels])
    spreads = []
    for label in labels:
        used = [run for run in shown if run.planned.label == label and run.used]
        examples = None
        if used:
            draws = RowScores({run.planned.seed: evidence[run.key].predictions for run in used}).draws(metric)
            examples = POINTS * fmean((draws[1:] - draws[0]).std(axis=0))
        of_sources = {source: deviation(_scores(varied.get((label, source), []), metric)) for source in SOURCES}
        spreads.append(SpreadSources(label, of_sources, deviation(_scores(used, metric)), examples))
    return spreads


def _scores(runs: Sequence[RunState], metric: str) -> list[float]:
    evaluations = [run.planned.evaluation.of(run.result) for run in runs if run.used and run.result]
    scores = [evaluation.metrics.get(metric) for evaluation in evaluations if evaluation]
    return [score for score in scores if score is not None]

"""Which trial wins: the best score on validation after the last epoch. Nothing here looks at another split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from peftbench.search.space import Point
from peftbench.tables.collect import RunState

SPLIT = "validation"


@dataclass(frozen=True)
class Trial:
    """A combination and what came of it.

    Attributes:
        number: from 1 on, in the order of the search. point: the settings that are its own.
        id: of its run. status, reason: as `RunState` has them.
        scores: the task's metrics on validation; empty where the run says nothing that counts.
        trained: the method's parameters. seconds: of training.
        classes: of the task, 0 for scores.
    """

    number: int
    point: Point
    id: str
    status: str
    reason: str | None
    scores: Mapping[str, float]
    trained: int | None
    seconds: float | None
    classes: int = 0


@dataclass(frozen=True)
class Summary:
    """A score over several seeds; one has no standard deviation."""

    mean: float
    sd: float | None
    n: int


def outcome(number: int, point: Point, found: RunState) -> Trial:
    """Return what came of a trial from what there is of its run."""
    result = found.result if found.used else None
    metrics = result.metrics.get(SPLIT, {}) if result else {}
    evaluation = result.evaluation(SPLIT) if result else None
    by_class = evaluation.by_class if evaluation else None
    scores = {name: score for name in metrics_of(found) if (score := metrics.get(name)) is not None}
    return Trial(
        number=number,
        point=point,
        id=found.record.folder.name,
        status=found.status,
        reason=found.reason,
        scores=scores,
        trained=result.parameters.method if result and result.parameters else None,
        seconds=result.time.train if result and result.time else None,
        classes=len(by_class["names"]) if by_class else 0,
    )


def metrics_of(found: RunState) -> list[str]:
    """Return the metrics of the run's task, the primary one first."""
    return list(found.planned.config["task"]["metrics"])


def rank(trials: Sequence[Trial], primary: str) -> list[Trial]:
    """Order trials from the best score on; equal ones by fewer trained parameters, then by number.

    Those without a score come last.
    """

    def place(trial: Trial) -> tuple[bool, float, int, int]:
        score = trial.scores.get(primary)
        return score is None, -(score or 0.0), trial.trained or 0, trial.number

    return sorted(trials, key=place)


def select(trials: Sequence[Trial], primary: str) -> Trial | None:
    """Return the trial that wins; None where none has a score."""
    best = next(iter(rank(trials, primary)), None)
    return best if best is not None and primary in best.scores else None


def summarize(runs: Sequence[RunState]) -> dict[str, dict[str, Summary]]:
    """Return mean and standard deviation over the seeds of one setting, by split and metric."""
    used = [run for run in runs if run.used]
    summaries: dict[str, dict[str, Summary]] = {}
    metrics = [run.result.metrics for run in used if run.result]
    for split in metrics[0] if metrics else ():
        for metric in metrics_of(used[0]):
            values = [v for of_run in metrics if (v := of_run.get(split, {}).get(metric)) is not None]
            if values:
                sd = stdev(values) if len(values) > 1 else None
                summaries.setdefault(split, {})[metric] = Summary(fmean(values), sd, len(values))
    return summaries

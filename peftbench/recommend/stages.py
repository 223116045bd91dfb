"""One stage of a recommendation: its runs are trained, scored and compared within the limits."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from peftbench.advice.answer import Answer, answer
from peftbench.advice.comparison import LOCAL
from peftbench.advice.limits import Limits
from peftbench.advice.shipped import to_comparison
from peftbench.errors import PeftbenchError, UserError
from peftbench.recommend.halving import Cost
from peftbench.runs.result import SECTIONS
from peftbench.sweeps.evaluate import evaluate_rows
from peftbench.sweeps.measure import measure_rows
from peftbench.sweeps.request import read_request
from peftbench.sweeps.train import train_missing
from peftbench.tables.build import build_table
from peftbench.tables.collect import STALE, RunState, collect
from peftbench.tables.spec import EvaluationSpec, TableSpec
from peftbench.tables.table import Table

_LATENCY = ("latency", "latency_merged")
# measuring is for the end, when nothing else runs
_UNMEASURED = [f"measure.{section}=false" for section in SECTIONS]


@dataclass(frozen=True)
class Outcome:
    """What a stage came to.

    Attributes:
        table: of its runs. answer: read off it, within the limits.
        costs: by candidate, projected from its run's record alone, so that a call that goes on plans alike.
        seconds: what all its runs took.
        overhead: seconds of this call besides those of the runs it trained: starts of processes, measuring.
        overhead_per_run: of these, what a run takes.
        failed: by candidate, why it has no score.
    """

    table: Table
    answer: Answer
    costs: dict[str, Cost]
    seconds: float
    overhead: float
    overhead_per_run: float
    failed: dict[str, str]

    @property
    def ranked(self) -> list[str]:
        """The candidates within the limits, the highest score first."""
        primary = self.answer.comparison.primary
        scores = {
            candidate.label: candidate.cells[primary].value
            for candidate in self.answer.within
            if primary in candidate.cells
        }
        known = {label: score for label, score in scores.items() if score is not None}
        return sorted(known, key=lambda label: -known[label])


class NoRunFinishedError(PeftbenchError):
    """No run of a stage finished; `reason` is the first one's, with the exit code of a mistake where it was one."""

    def __init__(self, reason: str, mistake: bool) -> None:
        super().__init__(f"no run finished: {reason}")
        self.reason = reason
        self.exit_code = UserError.exit_code if mistake else PeftbenchError.exit_code


def run_stage(
    lines: Sequence[str],
    labels: Sequence[str],
    seeds: Sequence[int],
    limits: Limits,
    steps: Mapping[str, int] | None = None,
    total: Mapping[str, int] | None = None,
) -> Outcome:
    """Train what a stage lacks, and compare its candidates.

    Args:
        lines: what makes the table of all candidates.
        labels: those of this stage. seeds: of each.
        limits: a candidate over one of them is out.
        steps: of each candidate's training; None is all of it, scored on the table's split and measured.
        total: steps of each candidate's full training.

    Raises NoRunFinishedError where no run finished, UserError where all there are were made by other code.
    """
    began = time.monotonic()
    request = read_request(lines, partial(_part, labels=labels, seeds=seeds, steps=steps, latency=limits.latency))
    earlier = _durations(collect(request.planned))
    mistakes: dict[Path, str] = {}
    train_missing(request.planned, request.hydra, request.stale, mistakes, more=lambda run: _UNMEASURED)
    if steps is None:
        evaluate_rows(request)
    if steps is None or limits.latency is not None:
        measure_rows(request)
    found = collect(request.planned, request.stale == "use", mistakes)
    used = {run.planned.label for run in found if run.used}
    failed = {run.planned.label: run.reason or run.status for run in found if run.planned.label not in used}
    if not used:
        if all(run.status == STALE for run in found):
            raise UserError(
                f"all runs there are were {next(iter(failed.values()))}: stale=rerun trains them again, stale=use takes"
                " them as they are"
            )
        raise NoRunFinishedError(next(iter(failed.values())), bool(mistakes))
    table = build_table(request.spec, found, request.command)
    comparison = to_comparison(table, found, LOCAL)
    fractions = {label: (steps[label] / total[label] if steps and total else 1.0) for label in labels}
    durations = _durations(found)
    trained = [durations[folder] for folder in durations.keys() - earlier.keys()]
    overhead = max(0.0, time.monotonic() - began - sum(trained))
    return Outcome(
        table=table,
        answer=answer(comparison, limits),
        costs={run.planned.label: _cost(run, fractions[run.planned.label]) for run in found if run.used},
        seconds=sum(durations.values()),
        overhead=overhead,
        # of a single run it is mostly the first start
        overhead_per_run=overhead / len(trained) if len(trained) > 1 else 0.0,
        failed=failed,
    )


def _part(
    spec: TableSpec,
    labels: Sequence[str],
    seeds: Sequence[int],
    steps: Mapping[str, int] | None,
    latency: float | None,
) -> TableSpec:
    """Return the table of some candidates and seeds; one that is not trained in full is judged on validation."""
    rows = [row for row in spec.rows if row.label in labels]
    spec = replace(spec, rows=rows, seeds=list(seeds), baseline=rows[0].label, claims=[])
    if steps is None:
        return spec
    shortened = [
        replace(row, overrides=[*row.overrides, f"trainer.max_steps={steps[row.label]}"], evaluation={}) for row in rows
    ]
    columns = [key for key in spec.columns if key not in _LATENCY]
    columns += _LATENCY if latency is not None else ()
    return replace(spec, rows=shortened, columns=columns, evaluation=EvaluationSpec())


def _durations(found: Sequence[RunState]) -> dict[Path, float]:
    """Return the seconds that each run took, by its folder."""
    return {run.planned.folder: run.result.time.total for run in found if run.result and run.result.time}


def _cost(run: RunState, fraction: float) -> Cost:
    taken = run.result.time if run.result else None
    if taken is None:
        return Cost(0.0, 0.0)
    return Cost(taken.train / fraction, max(0.0, taken.total - taken.train))

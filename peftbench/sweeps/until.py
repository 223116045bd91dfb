"""`peftbench sweep table=… until=decided`: add seeds where a comparison is open, until all are told or time is up."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from peftbench.errors import UserError
from peftbench.sweeps.launch import runs_at_once
from peftbench.sweeps.request import TableRequest
from peftbench.tables.collect import NOT_EVALUATED, STALE, PlannedRun, RunState, collect
from peftbench.tables.looks import Seen, follow_table
from peftbench.tables.sequential import Course
from peftbench.terminal import console, format_duration


def train_until_decided(
    request: TableRequest, train: Callable[[Sequence[PlannedRun]], bool], mistakes: dict[Path, str], started: float
) -> None:
    """Train seed after seed of the rows whose comparison is open, and say why it stopped.

    Args:
        request: of a table with `until`; its runs are those of all seeds that a row may get.
        train: trains runs, those that others need first; False where it was stopped.
        mistakes: as `train_missing` fills it.
        started: when the budget's time began, by `time.monotonic`.

    Raises UserError where the budget allows not even one seed of every row, and where a run that is asked for is of
    other code or data and neither used nor trained again.
    """
    tried, seen = set[Path](), Seen()
    while True:
        found = collect(request.planned, request.stale == "use", mistakes)
        course = follow_table(request.spec, found, seen, tried)
        if course.ended:
            failed = [row.label for row in request.spec.rows if row.label not in course.seeds]
            console.print(_ending(course, failed))
            return
        lacking = [run for run in found if not run.used and _is_wanted(request, run, course)]
        _check_current(request, lacking)
        todo = [run.planned for run in lacking]
        todo = [run for run in todo if run.seed == min(other.seed for other in todo)]
        if not todo:
            console.print("not decided: runs are missing that could not be trained")
            return
        if request.budget is not None:
            seconds = _projected(todo, found, runs_at_once(request.hydra))
            if seconds is None:  # nobody knows yet: one run tells
                todo = todo[:1]
            elif time.monotonic() - started + seconds > request.budget:
                _out_of_time(request, course, todo, seconds)
                return
        console.print(f"\nseed {todo[0].seed} of {', '.join(dict.fromkeys(run.label for run in todo))}", style="bold")
        tried |= {run.folder for run in todo}
        if not train(todo):
            return


def wanted_runs(request: TableRequest, found: Sequence[RunState]) -> list[RunState]:
    """Return the runs that the table has asked for so far: all of one whose seeds are fixed."""
    if request.spec.most_seeds is None:
        return list(found)
    course = follow_table(request.spec, found)
    prepared = {row.label for row in request.spec.prepare}
    return [
        run
        for run in found
        if run.used or run.failed or run.planned.label in prepared or _is_wanted(request, run, course)
    ]


def _is_wanted(request: TableRequest, run: RunState, course: Course) -> bool:
    return request.spec.seeds.index(run.planned.seed) < course.seeds.get(run.planned.label, 0)


def _check_current(request: TableRequest, lacking: Sequence[RunState]) -> None:
    """Raise UserError where a run is there and would neither be used nor trained again: its row waits for it."""
    stale = [run for run in lacking if run.status == STALE] if request.stale != "rerun" else []
    if stale:
        use = "" if request.stale == "use" else ", stale=use takes those of other code as they are"
        raise UserError(
            f"row {stale[0].planned.label!r}, seed {stale[0].planned.seed}, is {stale[0].reason}: until=decided needs"
            f" it; stale=rerun trains it again{use}"
        )


def _projected(todo: Sequence[PlannedRun], found: Sequence[RunState], at_once: int) -> float | None:
    """Return what runs will take in seconds, by those there are of the same row or else of any; None where none is.

    Several that are one run, shown in several ways, count once, those that lack a score alone not at all. `at_once` are
    trained at the same time.
    """
    taken: dict[str, list[float]] = {}
    for run in found:
        if run.result and run.result.time:
            taken.setdefault(run.planned.label, []).append(run.result.time.total)
    if not taken:
        return None
    anywhere = fmean(seconds for of_row in taken.values() for seconds in of_row)
    trained = {run.planned.folder for run in found if run.status == NOT_EVALUATED}
    different = {run.folder: run.label for run in reversed(todo) if run.folder not in trained}.values()
    each = [fmean(taken[label]) if label in taken else anywhere for label in different]
    return max(math.fsum(each) / at_once, max(each, default=0.0))


def _out_of_time(request: TableRequest, course: Course, todo: Sequence[PlannedRun], seconds: float) -> None:
    assert request.budget is not None
    allowed = format_duration(request.budget)
    if todo[0].seed == request.spec.seeds[0] and seconds > request.budget:
        raise UserError(f"budget={allowed} allows not even one seed of every row: one takes {format_duration(seconds)}")
    waiting = f"{len(course.open)} comparisons are open" if course.looks_done else "nothing has been compared"
    console.print(
        f"\nstopped by the budget of {allowed}: {waiting}, and the next seed takes {format_duration(seconds)};"
        " the same command goes on"
    )


def _ending(course: Course, failed: Sequence[str]) -> str:
    runs = sum(course.seeds.values())
    lines = [f"\n{runs} runs: {'the most seeds there may be' if course.open else 'no comparison is open any more'}"]
    for pairs, why in ((course.open, "cannot be told"), (course.futile, "no number of seeds tells, on these examples")):
        if pairs:
            lines.append(f"{why}: {'; '.join(f'{pair.row} and {pair.other}' for pair in pairs)}")
    if not course.open and not course.futile and course.pairs:
        lines.append("decided: every comparison with the baseline and with the highest row is told")
    if failed:
        lines.append(f"compared with none, for a run failed: {', '.join(failed)}")
    return "\n".join(lines)

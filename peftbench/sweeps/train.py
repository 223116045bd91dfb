"""Train what is missing of the planned runs, through the launcher chosen, until all are finished or have failed."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any

from peftbench.config.asset import ModelConfig
from peftbench.config.fill import fill
from peftbench.config.task import fill_task
from peftbench.errors import LostRunError, PeftbenchError, TakenOverError, UserError
from peftbench.runs.lock import Locked, RunLock
from peftbench.runs.result import Status
from peftbench.sweeps import run_process
from peftbench.sweeps.job import data_is_described, job_settings, separate_sweep_job, sweep_job
from peftbench.sweeps.launch import launcher, runs_at_once
from peftbench.sweeps.request import key_of, launcher_name
from peftbench.tables.collect import (
    MISSING,
    NOT_EVALUATED,
    OTHER_DATA,
    STALE,
    PlannedRun,
    RunState,
    collect,
    data_source_of,
)
from peftbench.terminal import console, print_error

_POLL_SECONDS = 2.0


def train_missing(
    planned: Sequence[PlannedRun],
    hydra: Sequence[str],
    stale: str,
    mistakes: dict[Path, str],
    more: Callable[[RunState], Sequence[str]] = lambda run: (),
    stop: bool = False,
) -> bool:
    """Train each run once at most; those that another process trains are waited for, and taken over if it dies.

    Args:
        planned: the runs; several may be one and the same.
        hydra: overrides for Hydra itself, its launcher among them.
        stale: `rerun` trains finished runs of other code again.
        mistakes: gets, by its folder, the user's mistake that each run met which so left no record.
        more: further overrides of a run's job.
        stop: start no more than run at the same time, and nothing further once one has failed.

    Returns whether it went through to the end.
    """
    # the other launchers' jobs are processes of their own
    separate = run_process.IS_CHEAP and launcher_name(hydra) == "basic"
    job = separate_sweep_job if separate else sweep_job
    tried: set[Path] = set()
    described: list[Any] = []
    waited = False
    while True:
        found = {run.planned.folder: run for run in collect(planned)}.values()
        mixed = {data_source_of(run) for run in found if run.reason == OTHER_DATA} if stale == "rerun" else set()
        todo = [run for run in found if run.planned.folder not in tried and _is_lacking(run, stale, mixed)]
        if not todo:
            if not any(run.status == Status.RUNNING for run in found):
                return True
            if not waited:
                console.print("waiting for runs that another process trains", style="dim")
                waited = True
            time.sleep(_POLL_SECONDS)
            continue
        _fetch(todo)
        console.print(f"{len(found) - len(todo)} of {len(found)} runs are there, {len(todo)} to train")
        at_once = runs_at_once(hydra)
        size = at_once if stop else len(todo)
        for start in range(0, len(todo), size):
            part = todo[start : start + size]
            errors: list[PeftbenchError | None] = [None] * len(part)
            try:
                with launcher(job, [*hydra, *_place(todo[0]), *job_settings(len(part), at_once == 1)]) as launch:
                    errors = launch(
                        [
                            [*run.planned.overrides, *_forced(run), *more(run), *_described(run, described)]
                            for run in part
                        ]
                    )
            except LostRunError as error:  # which of them, their records will tell
                print_error(error)
            now = collect([run.planned for run in part])
            for run, met in zip(now, errors, strict=True):
                if isinstance(met, LostRunError):
                    _record_as_lost(run, met)
                    lost = f"{met}: {run.planned.folder.name}; the same command goes on from its last epoch"
                    print_error(LostRunError(lost))
                if isinstance(met, UserError):
                    mistakes[run.planned.folder] = str(met)
                # one that another process held comes again, also where that process has died since
                if run.status != Status.RUNNING and not isinstance(met, Locked | TakenOverError):
                    tried.add(run.planned.folder)
            if any(isinstance(met, Locked | TakenOverError) for met in errors):
                time.sleep(_POLL_SECONDS)
            if stop and (mistakes or any(run.status in (Status.FAILED, Status.OOM, Status.INTERRUPTED) for run in now)):
                return False


def _record_as_lost(run: RunState, error: LostRunError) -> None:
    """Say in a run's record that it failed, which its process could not any more; its checkpoint stays."""
    with suppress(PeftbenchError), RunLock(run.record.folder):  # where another process has it by now
        if run.record.read().status == Status.RUNNING:
            run.record.fail(Status.FAILED, str(error))


def exit_code(found: Iterable[RunState], mistakes: Mapping[Path, str]) -> int:
    """Return 0 where all runs are there, 2 where the user's mistakes are the reason that some are not, else 1."""
    lacking = {run.planned.folder: run.status for run in found if run.status not in (Status.FINISHED, STALE)}
    # what is missing beside a mistake was stopped by it
    failed = [folder for folder, status in lacking.items() if folder not in mistakes and status != MISSING]
    if failed or (lacking and not mistakes):
        return 1
    return 2 if mistakes else 0


def _fetch(todo: Sequence[RunState]) -> None:
    """Fetch models and data once, before any job asks for them; raises UserError where one cannot be had."""
    from peftbench.assets.fetch import fetch
    from peftbench.tasks.kinds import load_task

    seen: list[object] = []
    for run in todo:
        model, task = run.planned.config["model"], run.planned.config["task"]
        if (model, task) not in seen:
            seen.append((model, task))
            fetch(fill(ModelConfig, model, "model"))
            load_task(fill_task(task))


def _place(run: RunState) -> list[str]:
    """Return the override that says where records lie: the launcher keeps its scripts and logs there too."""
    return [line for line in run.planned.overrides if key_of(line) == "output_dir"]


def _described(run: RunState, described: list[Any]) -> list[str]:
    """Return the override of a job whose data another job describes; `described` gets the data of the others."""
    data = run.planned.config["model"], run.planned.config["task"]
    if data in described:
        return [data_is_described()]
    described.append(data)
    return []


def _is_lacking(run: RunState, stale: str, mixed: Set[str]) -> bool:
    """Tell whether a run is to be trained; `mixed` are places whose data have changed between runs that are made again.

    Those of the data that are there now find themselves finished.
    """
    if run.status == STALE:
        return stale == "rerun"
    if run.status == Status.FINISHED:
        return data_source_of(run) in mixed
    return run.status not in (Status.RUNNING, NOT_EVALUATED)


def _forced(run: RunState) -> list[str]:
    return ["force=true"] if run.status in (STALE, Status.FINISHED) else []

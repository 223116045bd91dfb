"""Measure, behind all training, what the columns of a table need: what depends on an otherwise idle machine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peftbench.errors import PeftbenchError
from peftbench.interruption import deferred_interrupts
from peftbench.loggers.wandb_run import log_measured
from peftbench.runs.lock import Locked, RunLock
from peftbench.runs.result import Evaluation
from peftbench.sweeps.request import TableRequest, last_value, launcher_name
from peftbench.tables.collect import PlannedRun, RunState, collect
from peftbench.tables.columns import MEASURED
from peftbench.terminal import console, print_error

_POLL_SECONDS = 2.0


def measure_rows(request: TableRequest) -> int:
    """Measure, one run of each row, what its columns need and no run of it has; nothing else runs meanwhile.

    Returns 0, or the exit code of the first error.
    """
    from peftbench.runs.measured import measure_finished, measure_reduced

    lacking = _lacking(request)
    if not lacking:
        return 0
    if not is_local(request):
        labels = ", ".join(label for label, _, _ in lacking)
        console.print(f"not measured: {labels}; hydra/launcher=basic measures them on this machine")
        return 0
    code = 0
    with _alone(Path(request.config.output_dir)):
        for label, run, sections in _lacking(request):  # another sweep may have measured some meanwhile
            console.print(f"measuring {label}: {', '.join(sorted(sections)).replace('_', ' ')}")
            try:
                reduced = _reduced(run) if "latency" in sections else None
                with deferred_interrupts():
                    if reduced:
                        measure_reduced(run.record, reduced)
                    if others := sections - ({"latency"} if reduced else set()):
                        measure_finished(run.record, others, log_measured)
            except PeftbenchError as error:
                print_error(error)
                code = code or error.exit_code
    return code


def needed_sections(request: TableRequest, run: PlannedRun) -> set[str]:
    """Return what the shown columns need to have measured, unless the line turns it off."""
    needed = {MEASURED[key] for key in request.spec.columns if key in MEASURED}
    given = {section: last_value(run.overrides, f"measure.{section}") for section in needed}
    return {section for section, value in given.items() if value is None or run.config["measure"][section]}


def is_local(request: TableRequest) -> bool:
    """Tell whether the launcher's runs run on this machine, which therefore measures behind all training."""
    chosen = launcher_name(request.hydra)
    # ray has a cluster of its own on this machine unless it is told of another
    local_ray = chosen == "ray" and (last_value(request.hydra, "hydra.launcher.address") or "local") == "local"
    return local_ray or chosen in ("basic", "joblib")


def _lacking(request: TableRequest) -> list[tuple[str, RunState, set[str]]]:
    """Return the rows that lack sections, each with the run to measure and what it is to measure."""
    found = collect(request.planned, use_stale=request.stale == "use")
    lacking = []
    for label in [row.label for row in request.spec.rows]:
        used = [run for run in found if run.planned.label == label and run.used]
        if used:
            needed = needed_sections(request, used[0].planned)
            lacking.append((label, used[0], {name for name in needed if not any(_has(run, name) for run in used)}))
    return [row for row in lacking if row[2]]


def _reduced(run: RunState) -> Evaluation | None:
    """Return the evaluation that a row shows of a run where something is left out of the method in it."""
    assert run.result is not None
    shown = run.planned.evaluation.of(run.result)
    return shown if shown and shown.left_out else None


def _has(run: RunState, section: str) -> bool:
    """Tell whether a run's record has the figures that its row shows of a section."""
    assert run.result is not None
    if section == "latency" and (reduced := _reduced(run)):
        return reduced.latency is not None
    return bool(run.result.section(section))


@contextmanager
def _alone(output_dir: Path) -> Iterator[None]:
    """Keep other sweeps over the same records from measuring inside the block; wait for one that does."""
    lock = RunLock(output_dir / ".measuring")
    waited = False
    while True:
        try:
            lock.acquire()
            break
        except Locked:
            if not waited:
                console.print("waiting for another sweep that measures", style="dim")
                waited = True
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # another sweep waits for it
            lock.folder.rmdir()

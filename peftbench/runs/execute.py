"""Execute one run: config → backbone → method attached → trained → recorded → measured."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from peftbench import cli
from peftbench.config.schema import RunConfig
from peftbench.errors import PeftbenchError, UserError
from peftbench.files import remove
from peftbench.runs.failure import failure_recorded, preparing_recorded
from peftbench.runs.identity import run_id
from peftbench.runs.lock import RunLock
from peftbench.runs.observers import RecordHistory, Terminal
from peftbench.runs.record import Record
from peftbench.runs.report import report_data, report_finished, report_remarks, report_result
from peftbench.runs.result import Memory, Origin, Parameters, Result, Status, Times
from peftbench.terminal import console

if TYPE_CHECKING:
    from peftbench.runs.prepare import Prepared
    from peftbench.runs.scoring import SplitScore
    from peftbench.training.progress import Fitted

# (config, record) → a context that yields the run's loggers: `training.loop.Observer`s with an `on_result(result)`
OpenLoggers = Callable[[RunConfig, Record], AbstractContextManager[list[Any]]]


class Trained(NamedTuple):
    """A trained run before it is recorded: its training curve, scores by split, memory and times."""

    fitted: "Fitted"
    scored: dict[str, "SplitScore"]
    memory: Memory
    time: Times


_trained_before = False  # whether this process has begun a run already


def _no_loggers(config: RunConfig, record: Record) -> AbstractContextManager[list[Any]]:
    return nullcontext([])


def execute_run(
    config: RunConfig, overrides: list[str], only_stale: bool = False, open_loggers: OpenLoggers = _no_loggers
) -> Result:
    """Train, record and measure one run; a finished one is not trained again unless forced.

    Args:
        config: of the run. overrides: that made it, as the command line had them.
        only_stale: with `config.force`, train a finished run again only where it is of other code or data.
        open_loggers: opens what logs the run besides its record, see `OpenLoggers`.

    Returns what its result.json holds. Raises UserError for what the user can mend, PeftbenchError for a run that
    failed, of which the record says why, or of which a measurement failed, and TakenOverError where another process
    took it over.
    """
    from peftbench.runs.measured import check_sections, measure_sections, sections_to_measure
    from peftbench.runs.pinned_config import pin_config
    from peftbench.runs.prepare import prepare
    from peftbench.runs.sources import check_data, check_parts
    from peftbench.tasks.kinds import is_of_files, load_task

    config = pin_config(config)
    record = Record(Path(config.output_dir) / config.experiment / run_id(config.plain()))
    if not config.force and is_finished(record):
        if is_of_files(config.task):
            check_data(record, load_task(config.task))
        check_parts(record, config)
        return _return_to_finished(record, config, open_loggers)
    with preparing_recorded(record, config.plain(), overrides):
        prepared = prepare(config, reuse=True)
        check_sections(sections_to_measure(config.measure), prepared, config)
    report_data(prepared.task, prepared.warnings)
    report_remarks(prepared.remarks)
    with RunLock(record.folder) as lock:
        already_finished = _claim_record(record, config, overrides, prepared.origin, only_stale)
        if not already_finished:
            with failure_recorded(record), open_loggers(config, record) as loggers:
                trained = _train(prepared, config, record, RecordHistory(record, lock), loggers)
                record.finish(**_save(trained, prepared, config, record))
                remove(record.checkpoint_path)
                errors = measure_sections(sections_to_measure(config.measure), prepared, config, record)
                for logger in loggers:
                    logger.on_result(record.read())
    if already_finished:
        return _return_to_finished(record, config, open_loggers)
    report_result(record)
    if errors:
        raise PeftbenchError(f"the run is trained and recorded, but {'; '.join(errors)} (see {record.log_path})")
    return record.read()


def is_finished(record: Record) -> bool:
    """Tell whether there is a record, and of a finished run; raises UserError where it is damaged."""
    return record.result_path.exists() and record.read().status == Status.FINISHED


def _return_to_finished(record: Record, config: RunConfig, open_loggers: OpenLoggers) -> Result:
    """Show a run that had finished before, after measuring what is asked for and was not measured.

    Raises UserError where one of its files is damaged.
    """
    from peftbench.runs.measured import measure_finished, sections_to_measure

    def log(config: RunConfig, record: Record) -> None:
        with open_loggers(config, record) as loggers:
            for logger in loggers:
                logger.on_result(record.read())

    if record.checkpoint_path.exists():  # left by a process killed between its last two steps
        with suppress(PeftbenchError), RunLock(record.folder):
            remove(record.checkpoint_path)
    result = record.read()
    record.check(list(result.files), result)
    lacking = sections_to_measure(config.measure, result)
    if lacking and not os.access(record.folder, os.W_OK):
        console.print(f"{record.folder} is only read: nothing is measured", style="dim")
        lacking = []
    if lacking:
        names = " and ".join(lacking).replace("_", " ")
        console.print(f"this run is finished already; measuring its {names}", style="dim")
        measure_finished(record, lacking, log, config)
        report_result(record)
    else:
        report_finished(record)
    return record.read()


def _claim_record(record: Record, config: RunConfig, overrides: list[str], origin: Origin, only_stale: bool) -> bool:
    """Make the record ready for training, from the start or from its checkpoint, its lock held.

    Returns whether another process has finished the run meanwhile, so that there is nothing to train. Raises UserError
    where the record was begun on other data.
    """
    before = _read_if_whole(record, config.force)
    same_origin = before is not None and before.origin == origin
    forced = config.force and not (same_origin and (only_stale or _was_interrupted_under_force(record)))
    if before and not forced:
        if before.status == Status.FINISHED:
            return True
        if record.checkpoint_path.exists():
            if before.origin and before.origin.data != origin.data:
                raise UserError(
                    f"{record.folder} was begun on other data than there is now: set another experiment=…, or begin"
                    " again with force=true"
                )
            if same_origin:
                record.reopen()
                return False
            # what it would end as is neither code's
            console.print("its checkpoint is of other code or of another model: beginning again", style="dim")
    Record.create(record.folder, config.plain(), overrides)
    record.update(origin=origin)
    return False


def _was_interrupted_under_force(record: Record) -> bool:
    """Tell whether the same command began the run again already, with force=true, and was stopped."""
    return record.read().status in (Status.RUNNING, Status.INTERRUPTED) and bool(record.config().get("force"))


def _read_if_whole(record: Record, forced: bool) -> Result | None:
    """Return what the record says, None where there is none, or a damaged one that is to be replaced."""
    if not record.result_path.exists():
        return None
    try:
        return record.read()
    except UserError:
        if not forced:
            raise
        return None


def _train(
    prepared: "Prepared", config: RunConfig, record: Record, history: RecordHistory, loggers: list[Any]
) -> Trained:
    """Attach the method, train, and score every split with labels."""
    from peftbench.measuring.memory import peak_memory, reset_peak
    from peftbench.runs.attached import attached_for_training
    from peftbench.runs.scoring import reported_splits, score_split
    from peftbench.training.loop import fit
    from peftbench.training.parallel import begin_training

    global _trained_before
    first_of_process, _trained_before = not _trained_before, True
    started = time.perf_counter()
    device, task, backbone, method = prepared.device, prepared.task, prepared.backbone, prepared.method
    backbone.model.to(device)
    method.to(device)
    reset_peak(device)
    trainer = config.trainer
    attached = attached_for_training(prepared, trainer)
    validated: list[SplitScore] = []

    def evaluate() -> dict[str, float]:
        validated[:] = [score_split(prepared, config, splits["validation"])]
        return validated[0].metrics

    with Terminal(config, task.metrics, len(task.labels)) as terminal, attached as splits:
        try:
            fitted = fit(
                model=backbone.model,
                trained=prepared.trained,
                data=splits["train"],
                loss=task.objective.loss,
                evaluate=evaluate,
                primary=task.metrics[0],
                config=trainer,
                seed=config.seed_for("order"),
                dropout_seed=config.seed_for("dropout"),
                device=device,
                checkpoint=record.checkpoint_path,
                observers=[terminal, history, *loggers],
                workers=begin_training(config),
                redraw=prepared.redraw,
                penalty=prepared.method.penalty,
                statistics=prepared.statistics,
            )
        finally:
            with suppress(UserError):  # a full disk, which the run fails for anyway
                history.write()
        scored = {
            # the last epoch's values are those that have just been scored
            name: validated[0] if name == "validation" and validated else score_split(prepared, config, splits[name])
            for name in reported_splits(prepared)
        }
        peaks = peak_memory(device)
    # what earlier runs of the process have left in the host's memory is no part of this one's
    memory = Memory(peaks["device_peak"], peaks["host_peak"] if first_of_process else None)
    return Trained(fitted, scored, memory, _times(fitted, time.perf_counter() - started, first_of_process))


def _save(trained: Trained, prepared: "Prepared", config: RunConfig, record: Record) -> dict[str, Any]:
    """Write predictions and adapter; return the fields of the result."""
    from peftbench.runs.adapter import save_adapter
    from peftbench.runs.origin import environment
    from peftbench.runs.pictures import write_pictures
    from peftbench.runs.scoring import evaluation_of

    task, plain = prepared.task, config.plain()
    answers = {name: scored.predictions for name, scored in trained.scored.items()}
    record.write_predictions(answers, task.labels)
    write_pictures(record.folder, task, answers)
    of_task = plain["task"] | task.settings_from_data
    save_adapter(record.adapter_dir, prepared.method, prepared.backbone, plain["model"], of_task, list(task.labels))
    # where nothing trains, what is reported is all there is
    best = trained.fitted.best or {"epoch": 0, "validation": trained.scored["validation"].metrics}
    return {
        "primary": task.metrics[0],
        "best_epoch": best["epoch"],
        "best": best["validation"],
        "examples": {name: len(split) for name, split in prepared.splits.items()},
        "evaluations": [
            evaluation_of(task, name, score, config.trainer.precision, predictions=record.predictions_path.name)
            for name, score in trained.scored.items()
        ],
        "parameters": Parameters(**prepared.parameters),
        "time": trained.time,
        "memory": trained.memory,
        "environment": environment(prepared.device, config.trainer.precision),
    }


def _times(fitted: "Fitted", total: float, first_of_process: bool) -> Times:
    seconds = sum(fitted.seconds)
    return Times(
        total=total + sum(fitted.seconds[: fitted.resumed]),
        train=seconds,
        per_epoch=fitted.seconds,
        examples_per_second=fitted.examples / seconds if seconds else 0.0,
        startup=_since_start(fitted.first_step) if first_of_process else None,
    )


def _since_start(moment: float | None) -> float | None:
    """Return the seconds from the start of this process to `moment` (of `time.time`)."""
    return None if moment is None else moment - cli.STARTED

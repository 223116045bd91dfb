"""Execute one run: config → backbone → method attached → trained → measured → record."""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench import cli
from peftbench.config.schema import RunConfig
from peftbench.errors import PeftbenchError, UserError
from peftbench.loggers.wandb_run import wandb_run
from peftbench.runs.identity import run_id
from peftbench.runs.lock import RunLock
from peftbench.runs.origin import code_digest
from peftbench.runs.progress import RecordHistory, Terminal
from peftbench.runs.record import Predictions, Record, Status
from peftbench.runs.report import report_data, report_finished, report_interrupted, report_result
from peftbench.terminal import console, print_error, working

if TYPE_CHECKING:
    from peftbench.runs.prepare import Prepared
    from peftbench.tasks import Task

_OOM_HINT = "lower trainer.batch_size (trainer.accumulate keeps the effective size) or task.max_length"
_trained_before = False  # whether this process has begun a run already


def execute_run(config: RunConfig, overrides: list[str], only_stale: bool = False) -> dict[str, Any]:
    """Train, measure and record one run; a finished one is not trained again unless forced.

    Args:
        config: of the run. overrides: that made it.
        only_stale: `config.force` concerns a finished run of other code or data alone.

    Returns what its result.json holds. Raises UserError for what the user can mend, PeftbenchError for a run
    that failed; the record then says why.
    """
    from peftbench.runs.prepare import prepare
    from peftbench.tasks import load_task

    plain = config.plain()
    record = Record(Path(config.output_dir) / config.experiment / run_id(plain))
    if not config.force and _is_finished(record):
        if config.task.dir or config.task.source == "local":
            check_data(record, load_task(config.task))
        return _report_finished(record)
    prepared = prepare(config, reuse=True)
    report_data(prepared.task, prepared.warnings)
    origin = {"data": prepared.task.checksum, "code": code_digest(config.method_name)}
    with RunLock(record.folder) as lock:
        forced = config.force and not (only_stale and _matches_origin(record, origin))
        if not forced and _is_finished(record):  # by another process, while this one prepared
            return _report_finished(record)
        interrupted = not forced and record.checkpoint_path.exists()
        if interrupted:
            check_data(record, prepared.task)
        if interrupted and _matches_origin(record, origin):
            record.reopen()
        else:
            if interrupted:  # what it would end as is neither code's
                console.print("its checkpoint is of other code: beginning again", style="dim")
            Record.create(record.folder, plain, overrides)
            record.update(**origin)
        with _failure_recorded(record), wandb_run(config, record) as mirrors:
            observers = [RecordHistory(record, lock), *mirrors]
            record.finish(**_train_and_measure(prepared, config, record, observers))
            for mirror in mirrors:
                mirror.on_result(record.read())
        record.checkpoint_path.unlink(missing_ok=True)
    report_result(record)
    return record.read()


def _report_finished(record: Record) -> dict[str, Any]:
    record.checkpoint_path.unlink(missing_ok=True)  # left by a process killed between its last two steps
    report_finished(record)
    return record.read()


def _matches_origin(record: Record, origin: dict[str, str]) -> bool:
    """Tell whether there is a record, and it is of this code and data."""
    return record.result_path.exists() and origin.items() <= record.read().items()


def check_data(record: Record, task: "Task") -> None:
    """Raise UserError where the record is of other data than `task` holds: a run's id does not cover it."""
    if record.read()["data"] != task.checksum:
        raise UserError(
            f"{record.folder} was trained on other data than {task.source} holds now:"
            " set another experiment=…, or train again with force=true"
        )


def _train_and_measure(prepared: "Prepared", config: RunConfig, record: Record, observers: list[Any]) -> dict[str, Any]:
    """Train, score and measure; return the fields of result.json."""
    from peftbench.backbones.economy.attach import economical
    from peftbench.measuring.memory import peak_memory, reset_peak
    from peftbench.measuring.run import measure_run
    from peftbench.runs.origin import environment
    from peftbench.serving.adapter import save_adapter
    from peftbench.training.devices import compute_dtype
    from peftbench.training.loop import fit

    global _trained_before
    first_of_process, _trained_before = not _trained_before, True
    started = time.perf_counter()
    device, task, backbone, method = prepared.device, prepared.task, prepared.backbone, prepared.method
    backbone.model.to(device)
    method.to(device)
    reset_peak(device)
    attached = economical(backbone.sites, method, prepared.first_row, config.trainer.precision, config.trainer.compile)
    with Terminal(config, task.metrics, len(task.labels)) as terminal, attached:
        fitted = fit(
            model=backbone.model,
            trained=prepared.trained,
            data=prepared.splits["train"],
            loss=task.objective.loss,
            evaluate=lambda: _score(prepared, config, "validation")[0],
            primary=task.metrics[0],
            config=config.trainer,
            seed=config.seed,
            device=device,
            checkpoint=record.checkpoint_path,
            observers=[terminal, *observers],
        )
        scored = {name: _score(prepared, config, name) for name in _reported(prepared)}
        memory = peak_memory(device)
    record.write_predictions({name: predictions for name, (_, predictions) in scored.items()})
    plain = config.plain()
    save_adapter(record.adapter_dir, method, backbone, plain["model"], plain["task"], list(task.labels))
    with working("measuring"):
        measured, failures = measure_run(
            method,
            backbone,
            prepared.first_row,
            prepared.splits["train"],
            task.objective.loss,
            record.adapter_dir,
            config,
        )
    for failure in failures:
        print_error(failure)
    seconds = sum(fitted.seconds)
    rows = len(prepared.splits["train"])
    return {
        "metrics": {name: metrics for name, (metrics, _) in scored.items()},
        "by_class": {
            name: task.objective.by_class(predictions.predictions, predictions.labels)
            for name, (_, predictions) in scored.items()
        },
        "best": {"epoch": fitted.best["epoch"], "validation": fitted.best["validation"]},
        "primary": task.metrics[0],
        "data_splits": task.checksums,
        "examples": {name: len(split) for name, split in prepared.splits.items()},
        "parameters": prepared.parameters,
        "time": {
            "total": time.perf_counter() - started,
            "train": seconds,
            "per_epoch": fitted.seconds,
            "examples_per_second": rows * len(fitted.seconds) / seconds,
            "startup": _since_start(fitted.first_step) if first_of_process else None,
        },
        # what earlier runs of the process have left in the host's memory is no part of this one's
        "memory": memory if first_of_process else {**memory, "host_peak": None},
        **measured,
        **environment(device, compute_dtype(config.trainer.precision), config.method_name),
    }


def _reported(prepared: "Prepared") -> list[str]:
    """Splits that are scored at the end: validation, and test where its labels are public."""
    return [
        name for name in ("validation", "test") if name in prepared.splits and prepared.splits[name].labels is not None
    ]


def _score(prepared: "Prepared", config: RunConfig, split: str) -> tuple[dict[str, float], Predictions]:
    from peftbench.training.inference import logits_of

    data, task = prepared.splits[split], prepared.task
    assert data.labels is not None
    logits = logits_of(
        prepared.backbone.model,
        data,
        config.trainer.eval_batch_size,
        config.trainer.precision,
        prepared.device,
    )
    metrics = task.objective.score(task.metrics, logits, data.labels)
    return metrics, Predictions(data.labels, *task.objective.read_out(logits))


def _is_finished(record: Record) -> bool:
    return record.result_path.exists() and record.read()["status"] == Status.FINISHED


@contextmanager
def _failure_recorded(record: Record) -> Iterator[None]:
    """Write into the record how a run ended badly, and the traceback of what nobody foresaw into train.log."""
    from peftbench.training.devices import is_out_of_memory

    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # rich exits where the reader of its output has gone
        resumable = record.checkpoint_path.exists()
        kept = "continue with the same command" if resumable else "no epoch was complete"
        _record_failure(record, Status.INTERRUPTED, f"interrupted; {kept}")
        report_interrupted(record)
        raise
    except PeftbenchError as error:
        _record_failure(record, Status.FAILED, str(error))
        raise
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if is_out_of_memory(error):
            status, reason = Status.OOM, f"out of memory: {_OOM_HINT} ({first_line})"
        else:
            status, reason = Status.FAILED, f"{type(error).__name__}: {first_line} (see {record.log_path})"
        _record_failure(record, status, reason, traceback.format_exc())
        raise PeftbenchError(reason) from error


def _record_failure(record: Record, status: Status, reason: str, details: str = "") -> None:
    try:
        record.fail(status, reason)
        if details:
            with record.log_path.open("a", encoding="utf-8") as log:
                log.write(details)
    except (UserError, OSError) as second:  # a full disk cannot take the record of its own failure
        print_error(second)


def _since_start(moment: float | None) -> float | None:
    """Return the seconds from the start of this process to `moment` (of `time.time`)."""
    return None if moment is None else moment - cli.STARTED

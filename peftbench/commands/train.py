"""`peftbench train`: config → backbone → method attached → trainer → measured → record."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from peftbench.commands import progress
from peftbench.config import RunConfig, resolve
from peftbench.errors import INTERRUPTED, PeftbenchError, UserError
from peftbench.records.lock import RunLock
from peftbench.records.origin import code_digest
from peftbench.records.record import Predictions, Record, Status, run_id
from peftbench.records.wandb_run import wandb_run

if TYPE_CHECKING:
    from peftbench.preparation import Prepared
    from peftbench.tasks import Task

_OOM_HINT = "lower trainer.batch_size (trainer.accumulate keeps the effective size) or task.max_length"
_exit_codes: list[int] = []
_command_pid: int | None = None
_trained_before = False  # whether this process has begun a run already


def main(argv: list[str]) -> int:
    """Compose the config with Hydra and train, once or (with -m) once for each combination.

    Returns 0, 1 where a run failed, 2 for a mistake in the config, 130 where it was interrupted.
    """
    import hydra

    from peftbench.compose import CONFIG_NAME, CONFIG_PATH, VERSION_BASE, translate

    global _command_pid
    _exit_codes.clear()
    _command_pid = os.getpid()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    # Hydra's parser takes its flags only before the overrides
    sys.argv = [sys.argv[0], *sorted(argv, key=lambda word: word not in ("-m", "--multirun"))]
    main = hydra.main(version_base=VERSION_BASE, config_path=CONFIG_PATH, config_name=CONFIG_NAME)
    compose_and_train = main(_hydras_job)
    interrupt_on_sigterm()
    try:
        compose_and_train()
    except KeyboardInterrupt:
        return INTERRUPTED
    except PeftbenchError:
        raise
    except Exception as error:
        raise translate(error, argv) from error
    return 1 if 1 in _exit_codes else max(_exit_codes, default=0)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM, a cluster's preemption, be recorded like Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def sweep_job(composed: DictConfig) -> PeftbenchError | None:
    """Train one composed config, in whatever process a launcher put it; return the error it ended with, if any.

    The error is told and, of a run that failed, recorded; the other jobs go on. `force` concerns runs of other code or
    data alone: another sweep may have trained this one again meanwhile.
    """
    try:
        _train_job(composed, only_stale=True)
    except PeftbenchError as error:
        return error
    return None


def _hydras_job(composed: DictConfig) -> None:
    """Do the job; remember a failure here, and raise one in another process, from which only errors come back."""
    try:
        _train_job(composed)
    except PeftbenchError as error:
        if os.getpid() != _command_pid:
            raise
        _exit_codes.append(error.exit_code)


def _train_job(composed: DictConfig, only_stale: bool = False) -> None:
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    overrides = list(hydra_config.overrides.task)
    if hydra_config.mode is not None and hydra_config.mode.name == "MULTIRUN":
        progress.tell_job(int(hydra_config.job.num) + 1, overrides)
    try:
        train(resolve(composed), overrides, only_stale)
    except PeftbenchError as error:
        progress.tell_error(error)
        raise


def train(config: RunConfig, overrides: list[str], only_stale: bool = False) -> dict[str, Any]:
    """Train, measure and record one run; a finished one is not trained again unless forced.

    Args:
        config: of the run. overrides: that made it.
        only_stale: `config.force` concerns a finished run of other code or data alone.

    Returns what its result.json holds. Raises UserError for what the user can mend, PeftbenchError for a run
    that failed; the record then says why.
    """
    from peftbench.preparation import prepare
    from peftbench.tasks import load_task

    plain = config.plain()
    record = Record(Path(config.output_dir) / config.experiment / run_id(plain))
    if not config.force and _is_finished(record):
        if config.task.dir or config.task.source == "local":
            check_data(record, load_task(config.task))
        return _told(record)
    prepared = prepare(config, reuse=True)
    origin = {"data": prepared.task.checksum, "code": code_digest(config.method_name)}
    with RunLock(record.folder) as lock:
        forced = config.force and not (only_stale and _is_of(record, origin))
        if not forced and _is_finished(record):  # by another process, while this one prepared
            return _told(record)
        interrupted = not forced and record.checkpoint_path.exists()
        if interrupted:
            check_data(record, prepared.task)
        if interrupted and _is_of(record, origin):
            record.reopen()
        else:
            if interrupted:  # what it would end as is neither code's
                progress.console.print("its checkpoint is of other code: beginning again", style="dim")
            Record.create(record.folder, plain, overrides)
            record.update(**origin)
        with _failure_recorded(record), wandb_run(config, record) as mirrors:
            observers = [progress.RecordHistory(record, lock), *mirrors]
            record.finish(**_train_and_measure(prepared, config, record, observers))
            for mirror in mirrors:
                mirror.on_result(record.read())
        record.checkpoint_path.unlink(missing_ok=True)
    progress.tell_result(record)
    return record.read()


def _told(record: Record) -> dict[str, Any]:
    record.checkpoint_path.unlink(missing_ok=True)  # left by a process killed between its last two steps
    progress.tell_finished(record)
    return record.read()


def _is_of(record: Record, origin: dict[str, str]) -> bool:
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
    import torch

    from peftbench.backbones.economy import economical
    from peftbench.measuring.memory import peak_memory, reset_peak
    from peftbench.measuring.run import measure_run
    from peftbench.records.origin import environment
    from peftbench.serving.adapter import save_adapter
    from peftbench.training.loop import compute_dtype, fit

    global _trained_before
    first_of_process, _trained_before = not _trained_before, True
    started = time.perf_counter()
    device, task, backbone, method = prepared.device, prepared.task, prepared.backbone, prepared.method
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    backbone.model.to(device)
    method.to(device)
    reset_peak(device)
    attached = economical(backbone.sites, method, prepared.first_row, config.trainer.compile)
    with progress.Terminal(config, task.metrics) as terminal, attached:
        fitted = fit(
            model=backbone.model,
            trained=prepared.trained,
            data=prepared.splits["train"],
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
    with progress.working("measuring"):
        data = prepared.splits["train"]
        measured, failures = measure_run(method, backbone, prepared.first_row, data, record.adapter_dir, config)
    for failure in failures:
        progress.tell_error(failure)
    seconds = sum(fitted.seconds)
    rows = len(prepared.splits["train"])
    return {
        "metrics": {name: metrics for name, (metrics, _) in scored.items()},
        "best": {"epoch": fitted.best["epoch"], "validation": fitted.best["validation"]},
        "primary": task.metrics[0],
        "examples": {name: len(split) for name, split in prepared.splits.items()},
        "parameters": prepared.parameters,
        "time": {
            "total": time.perf_counter() - started,
            "train": seconds,
            "per_epoch": fitted.seconds,
            "examples_per_second": rows * len(fitted.seconds) / seconds,
            "startup": progress.since_start(fitted.first_step) if first_of_process else None,
        },
        # what earlier runs of the process have left in the host's memory is no part of this one's
        "memory": memory if first_of_process else {**memory, "host_peak": None},
        **measured,
        **environment(device, compute_dtype(config.trainer.precision, device), config.method_name),
    }


def _reported(prepared: "Prepared") -> list[str]:
    """Splits that are scored at the end: validation, and test where its labels are public."""
    return [
        name for name in ("validation", "test") if name in prepared.splits and prepared.splits[name].labels is not None
    ]


def _score(prepared: "Prepared", config: RunConfig, split: str) -> tuple[dict[str, float], Predictions]:
    from peftbench.training.inference import logits_of, read_out, scores_of

    data, task = prepared.splits[split], prepared.task
    assert data.labels is not None
    logits = logits_of(
        prepared.backbone.model,
        data,
        config.trainer.eval_batch_size,
        config.trainer.precision,
        prepared.device,
    )
    predictions, probabilities = read_out(logits, task.regression)
    metrics = scores_of(logits, data.labels, task.metrics, task.regression)
    return metrics, Predictions(data.labels, predictions, probabilities)


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
        progress.tell_interrupted(record)
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
        progress.tell_error(second)

"""Mirrors a run into Weights & Biases: its config, curve, record and files, and how it ended."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftbench.config import LoggerConfig, RunConfig
from peftbench.errors import UserError
from peftbench.records.record import Record


class Mirror:
    """Logs the rows of the training curve and, at the end, the record."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def on_resume(self, step: int) -> None:
        """Note where an interrupted run went on."""
        self._run.summary["resumed_at_step"] = step

    def on_steps(self, row: dict[str, Any]) -> None:
        """Log loss, learning rate and speed."""
        wanted = ("loss", "lr", "examples_per_second", "epoch")
        self._run.log({f"train/{key}": row[key] for key in wanted}, step=row["step"])

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Log the validation metrics."""
        values = {f"validation/{name}": value for name, value in row["validation"].items()}
        self._run.log({**values, "train/epoch_seconds": row["seconds"]}, step=row["step"])

    def on_result(self, result: dict[str, Any]) -> None:
        """Make what was measured the run's summary."""
        for key in ("metrics", "best", "parameters", "time", "memory", "latency", "device", "threads"):
            self._run.summary[key] = result[key]


def start_wandb(logger: LoggerConfig, *, folder: Path, **settings: Any) -> Any:
    """Start a wandb run, offline where `logger.mode=auto` finds no key; raises UserError where it cannot start.

    Args:
        logger: project, entity and mode.
        folder: where wandb keeps its files.
        settings: id, name, group, job_type, config, as wandb.init takes them.
    """
    import wandb

    mode: Any = logger.mode
    if mode == "auto":
        mode = "online" if wandb.login(prompt=False) else "offline"
    try:
        return wandb.init(
            project=logger.project,
            entity=logger.entity,
            dir=folder,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off"),
            **settings,
        )
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"logger=wandb: {reason}; logger.mode=offline needs no account") from error


@contextmanager
def wandb_run(config: RunConfig, record: Record) -> Iterator[list[Mirror]]:
    """Yield the mirrors of this run: one with `logger=wandb`, none otherwise.

    The wandb run is finished when the block ends, as failed where it raised; a run that continues from its
    checkpoint continues its wandb run.
    """
    if config.logger.name != "wandb" or config.logger.mode == "disabled":
        yield []
        return
    plain = config.plain()
    started = record.read()["started"]
    run = start_wandb(
        config.logger,
        folder=record.folder,
        id=re.sub(r"\W+", "-", f"{record.folder.name}-{started}"),
        name=record.folder.name,
        group=config.experiment,
        job_type=config.method_name,
        config={key: plain[key] for key in ("method", "model", "task", "trainer", "seed", "experiment")},
    )
    failed = True
    try:
        yield [Mirror(run)]
        failed = False
    finally:
        run.finish(exit_code=1 if failed else 0)

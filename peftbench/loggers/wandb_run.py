"""Mirrors a run into Weights & Biases: its config, curve, record and files, and how it ended."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftbench.config.schema import LoggerConfig, RunConfig
from peftbench.errors import TakenOverError, UserError, first_line
from peftbench.runs.pictures import FOLDER as PICTURES
from peftbench.runs.record import Record
from peftbench.runs.result import SECTIONS, Result
from peftbench.tables.columns import MEASURED, PER_RUN, measured


class WandbLogger:
    """Logs the rows of the training curve and, at the end, the record."""

    def __init__(self, run: Any, folder: Path) -> None:
        """`run`: wandb's. folder: of the record."""
        self._run, self._folder = run, folder

    def on_resume(self, step: int) -> None:
        """Note where an interrupted run went on."""
        self._run.summary["resumed_at_step"] = step

    def on_steps(self, row: dict[str, Any]) -> None:
        """Log loss, learning rate and speed."""
        logged = ("loss", "lr", "examples_per_second", "epoch")
        self._run.log({f"train/{key}": row[key] for key in logged}, step=row["step"])

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Log the validation metrics."""
        values = {f"validation/{name}": value for name, value in row["validation"].items()}
        self._run.log({**values, "train/epoch_seconds": row["seconds"]}, step=row["step"])

    def on_result(self, result: Result) -> None:
        """Put the record into the run's summary, `figures/…` for panels to plot beside it, and log its pictures."""
        import wandb

        pictures = sorted((self._folder / PICTURES).glob("*.jpg"))
        if pictures:
            self._run.log({f"{PICTURES}/{path.stem}": wandb.Image(str(path)) for path in pictures})
        summary = {**result.as_dict(), "metrics": result.metrics}
        summary |= {name: result.section(name).result for name in SECTIONS}
        self._run.summary.update({**summary, **figures(result)})


def figures(result: Result) -> dict[str, float]:
    """Return what a table shows of this run besides its scores, by `figures/COLUMN`, in the column's unit."""
    found = {key: value for key, figure in PER_RUN.items() if (value := figure(result)) is not None}
    found |= {key: figure[0] for key in MEASURED if (figure := measured(key, result))}
    return {f"figures/{key}": value for key, value in found.items()}


@contextmanager
def wandb_refusals() -> Iterator[None]:
    """Turn what wandb refuses, such as a key, into UserError."""
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        raise UserError(f"logger=wandb: {first_line(error)}; logger.mode=offline needs no account") from error


@wandb_refusals()
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
    return wandb.init(
        project=logger.project,
        entity=logger.entity,
        dir=folder,
        mode=mode,
        # offline too: `wandb sync` then appends what a continued run logs, instead of replacing what was there
        resume="allow",
        settings=wandb.Settings(silent=True, console="off"),
        **settings,
    )


@contextmanager
def wandb_run(config: RunConfig, record: Record) -> Iterator[list[WandbLogger]]:
    """Yield the loggers of this run: one with `logger=wandb`, none otherwise.

    The wandb run is finished when the block ends, as failed where it raised; a run that continues from its
    checkpoint continues its wandb run.
    """
    if config.logger.name != "wandb" or config.logger.mode == "disabled":
        yield []
        return
    plain = config.plain()
    run = start_wandb(
        config.logger,
        folder=record.folder,
        id=_wandb_id(record),
        name=record.folder.name,
        group=config.experiment,
        job_type=config.method_name,
        config={key: plain[key] for key in ("method", "model", "task", "trainer", "seed", "experiment")},
    )
    code = 1
    try:
        yield [WandbLogger(run, record.folder)]
        code = 0
    except TakenOverError:  # its wandb run, too, is the other process' now
        code = 0
        raise
    except BaseException as error:
        run.summary["error"] = str(error) or type(error).__name__
        raise
    finally:
        run.finish(exit_code=code)


def log_measured(config: RunConfig, record: Record) -> None:
    """Log what was measured after the run had ended to its wandb run, where it has one."""
    if any(record.folder.glob(f"wandb/*run-*-{_wandb_id(record)}")):
        with wandb_run(config, record) as loggers:
            for logger in loggers:
                logger.on_result(record.read())


def _wandb_id(record: Record) -> str:
    """Return an id that a run keeps when it is continued, and that training it anew changes."""
    return re.sub(r"\W+", "-", f"{record.folder.name}-{record.read().started}")

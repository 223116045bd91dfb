"""One job of Hydra's: the run of a composed config, in whatever process a launcher put it."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from peftbench.config.schema import resolve
from peftbench.errors import PeftbenchError, without_traceback
from peftbench.interruption import deferred_interrupts
from peftbench.loggers.wandb_run import wandb_run
from peftbench.runs.execute import execute_run
from peftbench.runs.report import report_job
from peftbench.runs.workers import execute_or_help, leads
from peftbench.terminal import console, print_error


def sweep_job(composed: DictConfig) -> PeftbenchError | None:
    """Train one composed config, in whatever process a launcher put it; return the error it ended with, if any.

    The error is told and, of a run that failed, recorded; the other jobs go on. `force` concerns runs of other code or
    data alone: another sweep may have trained this one again meanwhile.
    """
    from peftbench.training.devices import release_memory

    try:
        train_job(composed, only_stale=True)
    except PeftbenchError as error:
        return without_traceback(error)
    finally:
        release_memory()
    return None


def train_job(composed: DictConfig, only_stale: bool = False) -> None:
    """Resolve a composed config and execute its run; prints the error that it raises again."""
    from hydra.core.hydra_config import HydraConfig

    console.quiet = not leads()
    hydra_config = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # as they were typed
    if hydra_config.mode is not None and hydra_config.mode.name == "MULTIRUN":
        report_job(int(hydra_config.job.num) + 1, overrides)
    try:
        config = resolve(composed)
        with deferred_interrupts():
            execute_or_help(config, lambda: execute_run(config, overrides, only_stale, wandb_run))
    except PeftbenchError as error:
        if leads():
            print_error(error)
        raise

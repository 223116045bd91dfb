"""One job of Hydra's: the run of a composed config, in whatever process a launcher put it."""

import os
import time
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from peftbench.config.schema import RunConfig, resolve
from peftbench.crash_log import log_crash
from peftbench.errors import LostRunError, PeftbenchError, TakenOverError, without_traceback
from peftbench.interruption import deferred_interrupts
from peftbench.loggers.wandb_run import wandb_run
from peftbench.runs.execute import execute_run
from peftbench.runs.lock import Locked
from peftbench.runs.report import DATA_IS_DESCRIBED, remarked, report_job
from peftbench.runs.workers import execute_or_help
from peftbench.sweeps.run_process import run_in_process
from peftbench.terminal import console, print_error
from peftbench.training.torchrun import leads

# what a job is told through its environment, in whatever process it runs
_TOTAL, _STARTED = "PEFTBENCH_JOBS", "PEFTBENCH_JOBS_STARTED"


def sweep_job(composed: DictConfig) -> PeftbenchError | None:
    """Train one composed config in this process; return the error it ended with, if any.

    The error is printed and, of a run that failed, recorded; the other jobs go on. `force` concerns runs of other
    code or data alone: another sweep may have trained this one again meanwhile.
    """
    from peftbench.training.devices import release_memory

    try:
        return _error_of(composed, _execute)
    finally:
        release_memory()


def separate_sweep_job(composed: DictConfig) -> PeftbenchError | None:
    """Do the same in a process of the run's own, whose loss is returned as LostRunError."""
    return _error_of(composed, _execute_separately)


def train_job(composed: DictConfig) -> None:
    """Resolve a composed config and execute its run; prints the error that it raises again."""
    _, overrides = _announce(composed)
    try:
        config = resolve(composed)
        with deferred_interrupts():
            execute_or_help(config, lambda: execute_run(config, overrides, open_loggers=wandb_run))
    except PeftbenchError as error:
        if leads():
            print_error(error)
        raise


def _error_of(composed: DictConfig, execute: Callable[[RunConfig, list[str], bool], None]) -> PeftbenchError | None:
    number, overrides = _announce(composed)
    try:
        execute(resolve(composed), overrides, True)
    except LostRunError as error:
        return LostRunError(f"run {number} was lost: {error}")
    except (Locked, TakenOverError) as error:  # no failure: the sweep comes back to it
        console.print(f"run {number} is trained by another process meanwhile", style="dim")
        return without_traceback(error)
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = error if isinstance(error, PeftbenchError) else log_crash(error, overrides)
        print_error(failure)
        return without_traceback(failure)
    return None


def _execute(config: RunConfig, overrides: list[str], only_stale: bool) -> None:
    with deferred_interrupts():
        execute_run(config, overrides, only_stale, wandb_run)


def _execute_separately(config: RunConfig, overrides: list[str], only_stale: bool) -> None:
    remarked.update(run_in_process(_execute_after, remarked, config, overrides, only_stale))


def _execute_after(before: set[str], config: RunConfig, overrides: list[str], only_stale: bool) -> set[str]:
    """Execute a run without the remarks on methods that earlier ones made; return all that have been made."""
    remarked.update(before)
    _execute(config, overrides, only_stale)
    return remarked


def _announce(composed: DictConfig) -> tuple[int, list[str]]:
    """Return the number of the job, from 1 on, and its overrides; print them where there are several jobs."""
    from hydra.core.hydra_config import HydraConfig

    console.quiet = not leads()
    hydra_config = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # as they were typed
    if hydra_config.mode is None or hydra_config.mode.name != "MULTIRUN":
        return 1, overrides
    number = int(hydra_config.job.num) + 1
    report_job(number, overrides, *_progress(number))
    return number, overrides


def job_settings(total: int, one_by_one: bool) -> list[str]:
    """Return overrides for Hydra by which each of `total` jobs that start now knows how far they are."""
    settings = [f"+hydra.job.env_set.{_TOTAL}='{total}'"]
    return [*settings, f"+hydra.job.env_set.{_STARTED}='{time.time():.0f}'"] if one_by_one else settings


def data_is_described() -> str:
    """Return the override for Hydra by which a job leaves what is known of its data to another of the sweep."""
    return f"+hydra.job.env_set.{DATA_IS_DESCRIBED}='1'"


def _progress(number: int) -> tuple[int | None, float | None]:
    """Return how many jobs there are, and the seconds left for them if the rest take as long as those before."""
    total = int(os.environ[_TOTAL]) if _TOTAL in os.environ else None
    if total is None or number == 1 or _STARTED not in os.environ:
        return total, None
    spent = time.time() - float(os.environ[_STARTED])
    return total, spent / (number - 1) * (total - number + 1)

"""The launcher that a command line chooses: what it does with a list of jobs, and how many it has under way."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from peftbench.config.folder import CONFIG_NAME
from peftbench.config.hydra_session import hydra_ready
from peftbench.config.mistakes import error_text, translate
from peftbench.errors import LostRunError, PeftbenchError, UserError


@contextmanager
def launcher(task: Callable[[DictConfig], Any], overrides: Sequence[str]) -> Iterator[Callable[[Any], list[Any]]]:
    """Yield the function that runs `task` on each of a list of override lists and returns what each call returned.

    It is the launcher that `overrides` choose (`hydra/launcher=…`); jobs are composed as `peftbench train -m`
    composes its own. For a job whose process was lost it returns a LostRunError. Raises UserError for a launcher
    there is not, or one that is not installed, and LostRunError where the launcher waits for no other jobs then.
    """
    try:
        with hydra_ready():
            running = GlobalHydra.instance().hydra
            assert running is not None
            lines = [*overrides, "hydra.mode=MULTIRUN"]
            config = running.compose_config(CONFIG_NAME, lines, RunMode.MULTIRUN, from_shell=False)
            context = HydraContext(config_loader=running.config_loader, callbacks=Callbacks(config))
            with _settings_checked(config):
                chosen = Plugins.instance().instantiate_launcher(
                    hydra_context=context, task_function=task, config=config
                )

            def launch(jobs: Sequence[Sequence[str]]) -> list[Any]:
                with _settings_checked(config):
                    done = chosen.launch(jobs, initial_job_idx=0)
                return [_returned(job) for job in done]

            yield launch
    except PeftbenchError:
        raise
    except Exception as error:
        raise translate(error, overrides) from error


def _returned(job: JobReturn) -> Any:
    if isinstance(job._return_value, LostRunError):  # the property raises it, and prints the overrides
        return job._return_value
    return job.return_value


@contextmanager
def _settings_checked(config: DictConfig) -> Iterator[None]:
    """Turn what a launcher says of settings it cannot use into UserError; what jobs raise comes back otherwise."""
    try:
        yield
    except (ValueError, TypeError, AssertionError) as error:
        name = config.hydra.runtime.choices["hydra/launcher"]
        raise UserError(f"hydra/launcher={name} cannot use its settings: {error_text(error)}") from error


def runs_at_once(overrides: Sequence[str]) -> int:
    """Return how many runs the launcher that `overrides` choose has under way at the same time."""
    from hydra_plugins.peftbench_joblib import worker_count

    try:
        with hydra_ready() as loader:
            config = loader.load_configuration(CONFIG_NAME, list(overrides), RunMode.MULTIRUN, from_shell=False)
        chosen = config.hydra.launcher
        with _settings_checked(config):
            if "n_jobs" in chosen:  # joblib
                return worker_count(chosen.n_jobs, os.cpu_count() or 1)
            if "remote" in chosen:  # ray
                return max(1, int((os.cpu_count() or 1) / (chosen.remote.get("num_cpus") or 1)))
            return int(chosen.get("array_parallelism", 1))
    except (HydraException, OmegaConfBaseException) as error:
        raise translate(error, overrides) from error

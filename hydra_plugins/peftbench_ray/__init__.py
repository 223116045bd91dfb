"""A Hydra launcher that runs each job as a Ray task.

The published plugin, hydra-ray-launcher, holds Ray back with its AWS part (cloudpickle<3, boto3); without that
part the launcher is what follows. Hydra looks for launchers in `hydra_plugins` only.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from peftbench.errors import PeftbenchError, UserError

_OBJECT_STORE_BYTES = 100 * 2**20  # jobs hand over next to nothing; Ray would take a third of the memory


class RayLauncher(Launcher):
    """Runs jobs on the Ray cluster at `address` (`local`: its own); `remote` is what `ray.remote` takes."""

    def __init__(self, address: str, remote: DictConfig) -> None:
        self._address = address
        self._remote: Any = OmegaConf.to_container(remote, resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows of the jobs to come."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them; one whose process died for good is returned as failed."""
        try:
            import ray
        except ImportError as error:
            raise UserError("hydra/launcher=ray is not installed: pip install 'peftbench[ray]'") from error
        self._connect()
        remote = ray.remote(**self._remote)(_run)
        tasks = []
        for index, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = index
            tasks.append(remote.remote(self._context, config, self._task, Singleton.get_state(), Path.cwd()))
        numbered = enumerate(zip(tasks, job_overrides, strict=True), start=initial_job_idx + 1)
        return [_returned(task, number, overrides) for number, (task, overrides) in numbered]

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            ray.init(self._address, logging_level=logging.WARNING, **(own if self._address == "local" else {}))
        except (ConnectionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"hydra.launcher.address={self._address}: {reason}") from error


def _run(context: HydraContext, config: DictConfig, task: TaskFunction, state: Any, folder: Path) -> JobReturn:
    """Run one job, in a Ray worker."""
    os.chdir(folder)  # paths in the config are the command's, on the disk that all nodes share
    setup_globals()
    Singleton.set_state(state)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def _returned(task: Any, number: int, overrides: Sequence[str]) -> JobReturn:
    import ray
    from ray.exceptions import RayError

    try:
        returned: JobReturn = ray.get(task)
    except RayError as error:
        # what went wrong in the worker, or how the worker was lost
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0]
        returned = JobReturn(overrides=overrides, status=JobStatus.FAILED)
        returned.return_value = PeftbenchError(f"run {number}: its Ray task failed: {reason}")
    return returned

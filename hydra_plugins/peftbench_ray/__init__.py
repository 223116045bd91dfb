"""A Hydra launcher that runs each job as a Ray task.

The published plugin, hydra-ray-launcher, holds Ray back with its AWS part (cloudpickle<3, boto3); without that
part the launcher is what follows. Hydra looks for launchers in `hydra_plugins` only.
"""

import logging
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from peftbench.errors import UserError
from peftbench.sweeps.hydra_job import HydraJob, compose_jobs, lost

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
        jobs = compose_jobs(self._context, self._task, self._config, job_overrides, initial_job_idx)
        tasks = [ray.remote(**self._resources(str(job.config.get("device", "auto"))))(_run).remote(job) for job in jobs]
        numbered = enumerate(zip(tasks, job_overrides, strict=True), start=initial_job_idx + 1)
        return [_returned(task, number, overrides) for number, (task, overrides) in numbered]

    def _resources(self, device: str) -> dict[str, Any]:
        """Return what `ray.remote` takes for a run on `device`: a GPU of its own where the cluster has any.

        Ray shows a task the GPUs that it was given and no others.
        """
        import ray

        if device.startswith("cuda:"):
            raise UserError(f"device={device}: Ray gives each run a GPU of its own; write device=cuda")
        if self._remote.get("num_gpus") is not None:
            return self._remote
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        return {**self._remote, "num_gpus": int(has_gpus and device != "cpu")}

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        try:
            ray.init(self._address, logging_level=logging.WARNING, **(local if self._address == "local" else {}))
        except (ConnectionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"hydra.launcher.address={self._address}: {reason}") from error


def _run(job: HydraJob) -> JobReturn:
    return job.run()


def _returned(task: Any, number: int, overrides: Sequence[str]) -> JobReturn:
    import ray
    from ray.exceptions import RayError

    try:
        returned: JobReturn = ray.get(task)
    except RayError as error:
        # what went wrong in the worker, or how the worker was lost
        reason = str(getattr(error, "cause", None) or error).strip().splitlines()[0]
        returned = lost(number, overrides, f"its Ray task failed: {reason}")
    return returned

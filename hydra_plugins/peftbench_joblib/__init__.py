"""A Hydra launcher that runs several jobs at a time on this machine, with what joblib brings for it.

The published plugin, hydra-joblib-launcher, gives all jobs to one pool of workers, each of which imports torch for
itself, and which breaks as a whole when the system kills one of them. Here each job is forked from one process that
has imported it, so that only the job of a killed one is lost. Hydra looks for launchers in `hydra_plugins` only.
"""

import os
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from peftbench.errors import LostRunError, UserError
from peftbench.sweeps.hydra_job import HydraJob, compose_jobs, lost
from peftbench.sweeps.run_process import RunProcess, end, first_done


class JoblibLauncher(Launcher):
    """Runs `n_jobs` jobs at a time; -1 is one a core, -2 leaves a core free."""

    def __init__(self, n_jobs: int = -1) -> None:
        self._n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra knows of the jobs to come."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them; one whose process was killed is returned as failed."""
        try:
            import joblib
        except ImportError as error:
            raise UserError("hydra/launcher=joblib is not installed: pip install 'peftbench[joblib]'") from error
        workers = worker_count(self._n_jobs, joblib.cpu_count())
        jobs = compose_jobs(self._context, self._task, self._config, job_overrides, initial_job_idx)
        # a job that names its device has to see them all
        named = any(str(job.config.get("device", "auto")).startswith("cuda:") for job in jobs)
        devices = [] if named else cuda_devices()
        threads = max(1, joblib.cpu_count() // workers)
        environments = [{**thread_limit(threads), **device_of(number, devices)} for number in range(workers)]
        return _run_all(jobs, job_overrides, initial_job_idx, environments)


def worker_count(n_jobs: Any, cores: int) -> int:
    """Return how many jobs run at a time; raises ValueError for what is no such number."""
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise ValueError(f"n_jobs={n_jobs} must be a whole number: how many runs at a time, or -1 for one a core")
    return n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)


def thread_limit(threads: int) -> dict[str, str]:
    """Return the environment of a job that is to use `threads` threads; what the user has set is stronger."""
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def cuda_devices() -> list[str]:
    """Return the CUDA devices of this process as CUDA_VISIBLE_DEVICES names them, without starting CUDA."""
    import torch

    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return names[:count] if names else [str(number) for number in range(count)]


def device_of(number: int, devices: Sequence[str]) -> dict[str, str]:
    """Return the environment in which the job in place `number`, of those at a time, sees one device alone."""
    return {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if len(devices) > 1 else {}


def _run_all(
    jobs: Sequence[HydraJob],
    job_overrides: Sequence[Sequence[str]],
    first: int,
    environments: Sequence[Mapping[str, str]],
) -> list[JobReturn]:
    """Run as many jobs at a time as there are environments, each in one that no other has at that time."""
    import cloudpickle  # what Hydra keeps for a job are functions within functions, too

    returned: dict[int, JobReturn] = {}
    waiting, free = deque(range(len(jobs))), deque(environments)
    busy: dict[RunProcess, tuple[int, Mapping[str, str]]] = {}
    try:
        while waiting or busy:
            while waiting and free:
                place, environment = waiting.popleft(), free.popleft()
                busy[RunProcess(_run, cloudpickle.dumps(jobs[place]), environment=environment)] = place, environment
            for process in first_done(busy):
                place, environment = busy[process]
                returned[place] = _returned(process, first + place + 1, job_overrides[place])
                del busy[process]
                free.append(environment)
    finally:
        end(busy)
    return [returned[place] for place in range(len(jobs))]


def _run(pickled: bytes) -> Any:
    job: HydraJob = pickle.loads(pickled)
    returned = job.run()
    if returned.status is JobStatus.FAILED:
        raise returned._return_value  # the property, too, but it prints the overrides, and will again in the command
    return returned.return_value


def _returned(process: RunProcess, number: int, overrides: Sequence[str]) -> JobReturn:
    returned = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    try:
        returned.return_value = process.result()
    except LostRunError as error:
        return lost(number, overrides, str(error))
    except Exception as error:
        returned.return_value, returned.status = error, JobStatus.FAILED
    return returned

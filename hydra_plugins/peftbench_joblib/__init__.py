"""A Hydra launcher that runs several jobs at a time on this machine, in joblib's worker processes.

The published plugin, hydra-joblib-launcher, gives all jobs to one pool of workers, which breaks as a whole when the
system kills one of them. Here each worker is a pool of its own, so that only the job of the killed one is lost.
Hydra looks for launchers in `hydra_plugins` only.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from peftbench.errors import UserError
from peftbench.sweeps.hydra_job import HydraJob, compose_jobs, lost

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PARENT_SECONDS = 1.0  # between two looks at whether the command still lives


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
            from joblib.externals import loky
        except ImportError as error:
            raise UserError("hydra/launcher=joblib is not installed: pip install 'peftbench[joblib]'") from error
        workers = worker_count(self._n_jobs, loky.cpu_count())
        jobs = compose_jobs(self._context, self._task, self._config, job_overrides, initial_job_idx)
        # a job that names its device has to see them all
        named = any(str(job.config.get("device", "auto")).startswith("cuda:") for job in jobs)
        devices = [] if named else cuda_devices()
        threads = max(1, loky.cpu_count() // workers)
        environments = [{**thread_limits(threads), **device_of(number, devices)} for number in range(workers)]
        return _run_all(jobs, job_overrides, initial_job_idx, [_Worker(env) for env in environments[: len(jobs)]])


def worker_count(n_jobs: Any, cores: int) -> int:
    """Return how many jobs run at a time; raises ValueError for what is no such number."""
    if not isinstance(n_jobs, int) or isinstance(n_jobs, bool) or n_jobs == 0:
        raise ValueError(f"n_jobs={n_jobs} must be a whole number: how many runs at a time, or -1 for one a core")
    return n_jobs if n_jobs > 0 else max(1, cores + 1 + n_jobs)


def thread_limits(threads: int) -> dict[str, str]:
    """Return the environment of a worker that is to use `threads` threads; what the user has set is stronger."""
    return {name: os.environ.get(name, str(threads)) for name in _THREADS}


def cuda_devices() -> list[str]:
    """Return the CUDA devices of this process as CUDA_VISIBLE_DEVICES names them, without starting CUDA."""
    import torch

    names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return names[:count] if names else [str(number) for number in range(count)]


def device_of(worker: int, devices: Sequence[str]) -> dict[str, str]:
    """Return the environment in which a worker sees its own device alone: the workers take them in turn."""
    return {"CUDA_VISIBLE_DEVICES": devices[worker % len(devices)]} if len(devices) > 1 else {}


class _Worker:
    """A process that takes one job at a time; a new one takes the place of one that was killed."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._pool: Any = None

    def submit(self, job: HydraJob) -> "Future[JobReturn]":
        from joblib.externals.loky import ProcessPoolExecutor

        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                max_workers=1, initializer=_end_with_parent, initargs=(os.getpid(),), env=self._environment
            )
        future: Future[JobReturn] = self._pool.submit(job.run)
        return future

    def close(self, kill: bool) -> None:
        """End the process: behind its job, or at once."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=kill)
            self._pool = None


def _run_all(
    jobs: Sequence[HydraJob], job_overrides: Sequence[Sequence[str]], first: int, workers: Sequence[_Worker]
) -> list[JobReturn]:
    returned: dict[int, JobReturn] = {}
    waiting = deque(range(len(jobs)))
    idle = list(workers)
    busy: dict[Future[JobReturn], tuple[_Worker, int]] = {}
    kill = True
    try:
        while waiting or busy:
            while waiting and idle:
                worker, place = idle.pop(0), waiting.popleft()
                busy[worker.submit(jobs[place])] = worker, place
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, place = busy.pop(future)
                try:
                    returned[place] = future.result()
                except BrokenExecutor as error:
                    returned[place] = lost(first + place + 1, job_overrides[place], _how_it_ended(error))
                    worker.close(kill=True)
                idle.append(worker)
        kill = False
    finally:
        for worker in workers:
            worker.close(kill)
    return [returned[place] for place in range(len(jobs))]


def _how_it_ended(error: BrokenExecutor) -> str:
    if "SIGKILL" in str(error):
        return "its process was killed (SIGKILL), as the system does when memory runs out"
    return "its process ended: " + " ".join(str(error).split())


def _end_with_parent(parent: int) -> None:
    """End this process soon after the command that started it: killed, that cannot tell its workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""A job of Hydra's in another process: its config is composed where the command runs, and run where it is sent.

Workers that compose again see none of the folders of `hydra.searchpath`. For the launchers in `hydra_plugins`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from peftbench.errors import LostRunError


@dataclass(frozen=True)
class HydraJob:
    """All that another process needs to run a job; it can be pickled."""

    context: HydraContext
    config: DictConfig
    task: TaskFunction
    state: Any
    folder: Path

    def run(self) -> JobReturn:
        """Run the job in this process."""
        os.chdir(self.folder)  # paths in the config are the command's
        setup_globals()
        Singleton.set_state(self.state)
        HydraConfig.instance().set_config(self.config)
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def compose_jobs(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    initial_job_idx: int,
) -> list[HydraJob]:
    """Compose the config of each job, numbered from `initial_job_idx` on."""
    jobs = []
    for index, overrides in enumerate(job_overrides, start=initial_job_idx):
        composed = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = index
        jobs.append(HydraJob(context, composed, task, Singleton.get_state(), Path.cwd()))
    return jobs


def lost(number: int, overrides: Sequence[str], reason: str) -> JobReturn:
    """Return what stands for a job whose process ended without a word."""
    returned = JobReturn(overrides=overrides, status=JobStatus.FAILED)
    returned.return_value = LostRunError(f"run {number} was lost: {reason}")
    return returned

"""Jobs for the tests of launchers: what a worker process does with a composed config, without training."""

import os
import signal
import time
from pathlib import Path

from omegaconf import DictConfig

KILLED, PAUSE = 2, 0.3


def environment(config: DictConfig) -> tuple[int, str | None]:
    """Return the worker's process id and the devices that it sees."""
    time.sleep(PAUSE)  # so that all workers get a job
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


def die_at_seed(config: DictConfig) -> int:
    """End the process as the system does where memory is short, for one seed; return the others'."""
    if config.seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(PAUSE)
    return config.seed


def sleep(config: DictConfig) -> None:
    """Say which process this is, in a file of the output folder, and take long."""
    Path(config.output_dir, f"{os.getpid()}.pid").touch()
    time.sleep(300)

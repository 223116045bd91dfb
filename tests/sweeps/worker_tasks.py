"""Jobs for the tests of launchers: what a worker process does with a composed config, without training."""

import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from peftbench.errors import UserError
from peftbench.training.devices import default_threads

KILLED, PAUSE = 2, 0.3
kept: list[tempfile.TemporaryDirectory] = []


def environment(config: DictConfig) -> tuple[str | None, int, int, float, float]:
    """Return the devices and the threads that the job sees, its process, and when it began and ended."""
    begun = time.monotonic()
    time.sleep(PAUSE)  # so that jobs run beside each other
    return os.environ.get("CUDA_VISIBLE_DEVICES"), default_threads(), os.getpid(), begun, time.monotonic()


def die_at_seed(config: DictConfig) -> int:
    """End the process as the system does where memory is short, for one seed; return the others'."""
    if config.seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(PAUSE)
    return config.seed


def sleep(config: DictConfig) -> None:
    """Say which process this is, in a file of the output folder, and take long."""
    sleep_in(config.output_dir)


def sleep_in(folder: str) -> None:
    Path(folder, f"{os.getpid()}.pid").touch()
    time.sleep(300)


def ignore_sigterm(folder: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep_in(folder)


def keep_a_folder(folder: str) -> str:
    """Make a temporary folder that stays until the interpreter exits, as wandb's do."""
    kept.append(tempfile.TemporaryDirectory(dir=folder))
    return kept[-1].name


class OddError(UserError):
    """An error that can be pickled, and not be made again."""

    def __init__(self, text: str, more: int) -> None:
        super().__init__(f"{text}: {more}")


def odd_mistake(local: bool) -> None:
    if local:
        raise UserError("made of a function", lambda: None)
    raise OddError("made of two", 2)


def mistake(text: str) -> None:
    raise UserError(text)


# ---- for the tests themselves ----------------------------------------------------------------------------


def within(seconds: float, condition: Callable[[], Any]) -> Any:
    """Wait until the condition is met, `seconds` at most; return what it last was."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"

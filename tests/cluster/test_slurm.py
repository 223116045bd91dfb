"""Runs through a real Slurm that are preempted, queued again or killed end with the records of undisturbed ones."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.disturbed import kill_first_run, lasting, start, statuses, sweep, wait_for_epochs
from conftest import ROOT

pytestmark = pytest.mark.cluster

SCRIPT = str(ROOT / "scripts" / "local_slurm.sh")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find the local one, started here unless it runs already."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'peftbench[slurm]'")
    running = subprocess.run([SCRIPT, "status"], capture_output=True).returncode == 0
    started = subprocess.run([SCRIPT, "start"], capture_output=True, text=True)
    if started.returncode:
        pytest.skip(started.stderr.strip().splitlines()[-1])
    shown = subprocess.run(
        ["bash", "-c", f"{started.stdout}\nenv -0"], capture_output=True, text=True, check=True
    ).stdout
    yield dict(line.split("=", 1) for line in shown.split("\0") if line)
    if not running:
        subprocess.run([SCRIPT, "stop"], capture_output=True, check=True)


@pytest.fixture
def command(tiny_model_dir, tiny_data_dir, tmp_path):
    return lambda *overrides: sweep(tmp_path, tiny_model_dir, tiny_data_dir, *overrides)


@pytest.fixture(scope="module")
def undisturbed(tiny_model_dir, tiny_data_dir, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(sweep(outputs, tiny_model_dir, tiny_data_dir), check=True, capture_output=True)
    return lasting(outputs)


def _slurm(env: dict[str, str], *words: str) -> str:
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout


def _first_job(env: dict[str, str]) -> str:
    """Return the running job of the first run."""
    (job,) = [name for name in _slurm(env, "squeue", "-h", "-t", "R", "-o", "%i").split() if name.endswith("_0")]
    return job


def _logs(outputs: Path) -> str:
    return "".join(path.read_text() for path in outputs.glob(".multirun/slurm/*/*.out"))


DISTURBANCES: dict[str, Callable[[dict[str, str]], Any]] = {
    "told to leave": lambda env: _slurm(env, "scancel", "--signal=USR2", _first_job(env)),
    "requeued by hand": lambda env: _slurm(env, "scontrol", "requeue", _first_job(env)),
    "preempted": lambda env: _slurm(env, "sbatch", "--partition=urgent", "--exclusive", "--wrap=sleep 1"),
}


@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
def test_a_job_queued_again_goes_on(slurm, command, undisturbed, tmp_path, monkeypatch, disturb):
    monkeypatch.chdir(tmp_path)
    process = start(command(*SLURM), slurm)
    wait_for_epochs(tmp_path, process)
    disturb(slurm)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "continuing behind step" in _logs(tmp_path)
    assert lasting(tmp_path) == undisturbed


def test_a_killed_job_goes_on_with_the_same_command(slurm, command, undisturbed, tmp_path):
    process = start(command(*SLURM), slurm)
    wait_for_epochs(tmp_path, process, runs=1)
    kill_first_run(tmp_path)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "a run was lost" in error and len(error.strip().splitlines()) == 1, error
    while _slurm(slurm, "squeue", "-h", "-t", "R").strip():
        time.sleep(0.5)
    assert statuses(tmp_path) == ["running", "finished"]

    again = subprocess.run(command(*SLURM), env=slurm, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "continuing behind step" in _logs(tmp_path)
    assert lasting(tmp_path) == undisturbed

"""Runs through a real Ray whose worker is killed end with the records of undisturbed ones."""

import subprocess

import pytest
from cluster.disturbed import kill_first_run, lasting, start, statuses, sweep, wait_for_epochs

pytestmark = pytest.mark.cluster
pytest.importorskip("ray", reason="pip install 'peftbench[ray]'")

RAY = "hydra/launcher=ray"


@pytest.fixture
def command(tiny_model_dir, tiny_data_dir, tmp_path):
    return lambda *overrides: sweep(tmp_path, tiny_model_dir, tiny_data_dir, *overrides)


@pytest.fixture(scope="module")
def undisturbed(tiny_model_dir, tiny_data_dir, tmp_path_factory):
    outputs = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(sweep(outputs, tiny_model_dir, tiny_data_dir), check=True, capture_output=True)
    return lasting(outputs)


def test_a_killed_worker_is_replaced_and_goes_on(command, undisturbed, tmp_path):
    process = start(command(RAY))
    wait_for_epochs(tmp_path, process, runs=1)
    kill_first_run(tmp_path)
    output, error = process.communicate(timeout=900)  # Ray runs it at the lowest priority
    assert process.returncode == 0, error
    assert "continuing behind step" in output + error
    assert lasting(tmp_path) == undisturbed


def test_a_worker_lost_for_good_goes_on_with_the_same_command(command, undisturbed, tmp_path):
    process = start(command(RAY, "hydra.launcher.remote.max_retries=0"))
    wait_for_epochs(tmp_path, process, runs=1)
    kill_first_run(tmp_path)
    _, error = process.communicate(timeout=900)  # Ray runs it at the lowest priority
    assert process.returncode == 1 and "run 1: its Ray task failed: " in error, error
    assert "Traceback" not in error
    assert statuses(tmp_path) == ["running", "finished"]

    again = subprocess.run(command(RAY), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert lasting(tmp_path) == undisturbed

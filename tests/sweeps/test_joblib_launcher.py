"""Several runs at a time on one machine: lost workers, a killed command, GPUs, and tables of one's own."""

import os
import signal
from itertools import pairwise
from subprocess import PIPE

import forked
import pytest
from conftest import ROOT
from sweeps import worker_tasks

from hydra_plugins import peftbench_joblib
from peftbench import cli
from peftbench.errors import LostRunError
from peftbench.runs.find import find_runs
from peftbench.runs.result import SECTIONS
from peftbench.sweeps.launch import launcher

pytest.importorskip("joblib", reason="pip install 'peftbench[joblib]'")


def _launch(task, tmp_path, jobs, n_jobs=2, *overrides):
    settings = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}", f"output_dir={tmp_path}"]
    with launcher(task, settings) as launch:
        return launch([[f"seed={seed}", *overrides] for seed in range(jobs)])


@pytest.mark.long
def test_a_killed_job_loses_its_own_run_alone(tmp_path):
    returned = _launch(worker_tasks.die_at_seed, tmp_path, 5)
    lost = returned.pop(worker_tasks.KILLED)
    assert returned == [0, 1, 3, 4]
    assert isinstance(lost, LostRunError)
    assert str(lost) == "run 3 was lost: its process was killed (SIGKILL), as the system does when memory runs out"


@pytest.mark.parametrize(
    ("visible", "overrides", "seen"),
    [
        (None, (), {"0", "1"}),
        ("GPU-a,GPU-b", (), {"GPU-a", "GPU-b"}),
        ("3,4", ("device=cuda:1",), {"3,4"}),
    ],
)
def test_jobs_at_a_time_have_a_device_each(tmp_path, monkeypatch, visible, overrides, seen):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    jobs = _launch(worker_tasks.environment, tmp_path, 6, 2, *overrides)
    assert {devices for devices, *_ in jobs} == seen
    assert len({pid for _, _, pid, *_ in jobs}) == 6, "each has a process of its own"
    for devices in seen if len(seen) > 1 else ():
        times = sorted((begun, ended) for seen_by, _, _, begun, ended in jobs if seen_by == devices)
        assert all(before[1] <= after[0] for before, after in pairwise(times)), "never two at once on one device"


@pytest.mark.parametrize(("asked", "threads"), [(None, 3), ("2", 2)])
def test_jobs_share_the_cores_unless_the_user_says_how_many_threads(tmp_path, monkeypatch, asked, threads):
    monkeypatch.setattr("joblib.cpu_count", lambda: 6)
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert [job[1] for job in _launch(worker_tasks.environment, tmp_path, 2)] == [threads] * 2


def test_jobs_take_the_devices_in_turn_and_leave_a_single_one_alone():
    device_of = peftbench_joblib.device_of
    assert [device_of(number, ["0", "1", "2"])["CUDA_VISIBLE_DEVICES"] for number in range(5)] == list("01201")
    assert device_of(3, ["0"]) == device_of(3, []) == {}


@pytest.mark.long
def test_jobs_end_with_a_killed_command(tmp_path):
    code = (
        "from sweeps import worker_tasks; from peftbench.sweeps.launch import launcher\n"
        f"with launcher(worker_tasks.sleep, ['hydra/launcher=joblib', 'hydra.launcher.n_jobs=2']) as launch:\n"
        f"    launch([['seed=0', 'output_dir={tmp_path}'], ['seed=1', 'output_dir={tmp_path}']])"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    command = forked.Popen(["-c", code], env=env, start_new_session=True)
    try:
        assert worker_tasks.within(60, lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
        command.kill()
        command.wait()
        assert worker_tasks.within(20, lambda: not any(map(worker_tasks.lives, workers)))
    finally:
        command.kill()


@pytest.mark.long
def test_a_killed_worker_of_a_sweep_is_named_and_the_same_command_goes_on(sweep, capsys):
    """Also: a table found through hydra.searchpath, which the workers cannot compose."""
    sweep.spec.write_text(sweep.spec.read_text().replace("method.rank=2", "method.rank=2, trainer.epochs=30"))
    unmeasured = [f"measure.{section}=false" for section in SECTIONS]
    words = sweep.line("seeds=1", *unmeasured, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    command = ["-m", "peftbench", *words]
    process = forked.Popen(command, stdout=PIPE, stderr=PIPE, text=True)
    assert worker_tasks.within(
        90, lambda: [run.record for run in find_runs(sweep.outputs, method="lora", status="running")]
    )
    (lora,) = find_runs(sweep.outputs, method="lora")
    os.kill(lora.record.read().pid, signal.SIGKILL)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"killed (SIGKILL), as the system does when memory runs out: {lora.id}; the same command goes on" in error
    assert "Traceback" not in error + output
    statuses = {run.result.method: run.status for run in find_runs(sweep.outputs)}
    assert statuses == {"head": "finished", "lora": "failed", "adapter": "finished"}
    assert cli.main(words) == 0, capsys.readouterr().err
    assert {run.status for run in find_runs(sweep.outputs)} == {"finished"}

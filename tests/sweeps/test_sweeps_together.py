"""Several sweeps over the same records: they share the work, wait for each other, and take over from the dead."""

import subprocess
import sys
from types import SimpleNamespace

import forked
import pytest
from records import age

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.runs.execute import execute_run
from peftbench.runs.find import find_runs
from peftbench.runs.lock import RunLock
from peftbench.runs.result import SECTIONS
from peftbench.sweeps import measure as measure_rows
from peftbench.sweeps import train as missing
from peftbench.sweeps.request import read_request

pytestmark = pytest.mark.long
UNMEASURED = [f"measure.{section}=false" for section in SECTIONS]

HOLD = """
import sys, time
from pathlib import Path
from peftbench.runs.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


def start(sweep, *argv):
    command = ["-m", "peftbench", *sweep.line(*argv)]
    return forked.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_two_sweeps_at_once_share_the_work(sweep):
    processes = [start(sweep, *UNMEASURED) for _ in range(2)]
    shown = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    found = find_runs(sweep.outputs)
    assert len(found) == 6 and {run.status for run in found} == {"finished"}
    assert all("epoch 2/2" in output for output in shown)  # both did some of it
    for run in find_runs(sweep.outputs):
        assert [row["epoch"] for row in run.record.history() if "validation" in row] == [1, 2]


def test_another_process_s_run_is_waited_for_and_not_trained_twice(sweep, capsys):
    sweep("seeds=1", *UNMEASURED)
    (lora,) = find_runs(sweep.outputs, method="lora")
    finished = lora.record.result_path.read_text()
    lock = RunLock(lora.record.folder)
    lock.acquire()
    lora.record.update(status="running")
    code = (
        "import time; from pathlib import Path; time.sleep(4);"
        f"Path({str(lora.record.result_path)!r}).write_text({finished!r})"
    )
    other = subprocess.Popen([sys.executable, "-c", code])
    capsys.readouterr()
    try:
        assert sweep("seeds=1", *UNMEASURED) == 0
    finally:
        other.wait()
        lock.release()
    shown = capsys.readouterr().out
    assert "waiting for runs that another process trains" in shown and "to train" not in shown
    assert lora.record.result_path.read_text() == finished


@pytest.fixture
def held(request):
    """A function that has another process hold the lock of a folder; returns that process."""

    def hold(folder):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        assert process.stdout.readline() == "held\n"
        return process

    return hold


def test_a_run_whose_sweep_died_meanwhile_is_taken_over(sweep, held, monkeypatch):
    lora = next(run for run in read_request(sweep.line("seeds=1")[1:]).planned if run.label == "LoRA")
    other = held(lora.folder)

    def dies(seconds):
        other.kill()
        other.wait()

    monkeypatch.setattr(missing, "time", SimpleNamespace(sleep=dies))
    assert sweep("seeds=1", *UNMEASURED) == 0
    assert {run.status for run in find_runs(sweep.outputs)} == {"finished"} and other.poll() is not None


def test_a_run_that_another_sweep_begins_first_is_no_error(sweep, held, monkeypatch, capfd):
    lora = next(run for run in read_request(sweep.line("seeds=1")[1:]).planned if run.label == "LoRA")
    others = []
    monkeypatch.setattr(missing, "_fetch", lambda todo: others or others.append(held(lora.folder)))

    def dies(seconds):
        others[0].kill()
        others[0].wait()

    monkeypatch.setattr(missing, "time", SimpleNamespace(sleep=dies))
    assert sweep("seeds=1", *UNMEASURED) == 0
    shown = capfd.readouterr()
    assert "run 2 is trained by another process meanwhile" in shown.out and shown.err == ""
    assert {run.status for run in find_runs(sweep.outputs)} == {"finished"}


def test_a_stale_run_that_another_sweep_trained_again_is_not_trained_once_more(sweep):
    sweep("seeds=1", *UNMEASURED)
    lora = next(run for run in read_request(sweep.line("seeds=1")[1:]).planned if run.label == "LoRA")
    config = resolve(compose([*lora.overrides, "force=true"]))
    (run,) = find_runs(sweep.outputs, method="lora")
    started = run.result.started
    assert execute_run(config, lora.overrides, only_stale=True).started == started
    age(run.record)
    again = execute_run(config, lora.overrides, only_stale=True)
    assert again.started > started and again.metrics == run.result.metrics
    assert execute_run(config, lora.overrides).started > again.started, "force=true of one run means it"


def test_one_sweep_measures_at_a_time(sweep, held, monkeypatch, capsys):
    other = held(sweep.outputs / ".measuring")

    def dies(seconds):
        assert not any(run.result.latency for run in find_runs(sweep.outputs))
        other.kill()
        other.wait()

    monkeypatch.setattr(measure_rows, "time", SimpleNamespace(sleep=dies))
    assert sweep("seeds=1") == 0
    assert "waiting for another sweep that measures" in capsys.readouterr().out
    assert all(run.result.latency for run in find_runs(sweep.outputs))
    assert not (sweep.outputs / ".measuring").exists()

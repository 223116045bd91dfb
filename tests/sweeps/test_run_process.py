"""A run in a process of its own: its errors, its end, its memory."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import forked
import pytest
from conftest import ROOT
from sweeps import worker_tasks

from peftbench.errors import LostRunError, UserError
from peftbench.runs.find import find_runs
from peftbench.runs.result import SECTIONS
from peftbench.sweeps.run_process import IS_CHEAP, RunProcess, end, run_in_process

pytestmark = pytest.mark.skipif(not IS_CHEAP, reason="only on Linux")


def test_what_it_returns_comes_back():
    assert run_in_process(divmod, 7, 3) == (2, 1)
    assert run_in_process(os.getpid) != os.getpid()


def test_what_it_raises_comes_back():
    with pytest.raises(UserError, match="^seed=1 is wrong$"):
        run_in_process(worker_tasks.mistake, "seed=1 is wrong")
    with pytest.raises(ZeroDivisionError) as caught:
        run_in_process(divmod, 1, 0)
    assert "Traceback" in caught.value.__notes__[0]


def test_what_stays_until_the_interpreter_exits_is_removed(tmp_path):
    folder = run_in_process(worker_tasks.keep_a_folder, str(tmp_path))
    assert folder.startswith(str(tmp_path)) and worker_tasks.within(20, lambda: not list(tmp_path.iterdir()))


@pytest.mark.parametrize(("local", "says"), [(True, "made of a function"), (False, "made of two: 2")])
def test_an_error_that_cannot_be_sent_comes_back_in_words(local, says):
    with pytest.raises(UserError, match=says):
        run_in_process(worker_tasks.odd_mistake, local)


def test_a_second_interrupt_kills_a_run_that_does_not_end(tmp_path):
    process = RunProcess(worker_tasks.ignore_sigterm, str(tmp_path))
    assert worker_tasks.within(60, lambda: list(tmp_path.glob("*.pid")))
    (run,) = [int(path.stem) for path in tmp_path.glob("*.pid")]
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        end([process])
    assert worker_tasks.within(5, lambda: not worker_tasks.lives(run))


def test_a_long_folder_of_temporary_files_is_no_obstacle(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert run_in_process(divmod, 7, 3) == (2, 1)


@pytest.mark.long
def test_ctrl_c_while_the_server_imports_is_quiet(tmp_path):
    code = (
        "import sys; from sweeps import worker_tasks; from peftbench.sweeps.run_process import run_in_process\n"
        f"try:\n    print('begins', flush=True); run_in_process(worker_tasks.sleep_in, {str(tmp_path)!r})\n"
        "except KeyboardInterrupt:\n    sys.exit(130)"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    command = subprocess.Popen([sys.executable, "-c", code], env=env, **pipes)
    command.stdout.readline()
    time.sleep(1)  # torch takes longer
    os.killpg(command.pid, signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert command.returncode == 130 and error == b""


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, r"its process was killed \(SIGKILL\), as the system does when memory runs out"),
        (signal.SIGSEGV, "its process was ended by SIGSEGV"),
    ],
)
def test_a_process_that_ends_without_a_word_is_a_lost_run(number, reason):
    with pytest.raises(LostRunError, match=f"^{reason}$"):
        run_in_process(signal.raise_signal, number)


@pytest.mark.long
def test_it_ends_with_a_killed_command(tmp_path):
    code = (
        "from sweeps import worker_tasks; from peftbench.sweeps.run_process import run_in_process\n"
        f"run_in_process(worker_tasks.sleep_in, {str(tmp_path)!r})"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    command = forked.Popen(["-c", code], env=env)
    try:
        assert worker_tasks.within(60, lambda: list(tmp_path.glob("*.pid")))
        (run,) = [int(path.stem) for path in tmp_path.glob("*.pid")]
    finally:
        command.kill()
        command.wait()
    assert worker_tasks.within(20, lambda: not worker_tasks.lives(run))


@pytest.mark.long
def test_every_run_of_a_sweep_has_its_own_peak_of_memory(sweep):
    assert sweep(*(f"measure.{section}=false" for section in SECTIONS)) == 0
    peaks = [run.result.memory.host_peak for run in find_runs(sweep.outputs)]
    assert len(peaks) == 6 and all(peaks)
    assert max(peaks) < 1.1 * min(peaks), peaks

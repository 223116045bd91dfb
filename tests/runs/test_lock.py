import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peftbench.errors import PeftbenchError, TakenOverError, UserError
from peftbench.runs import lock as locks
from peftbench.runs import processes
from peftbench.runs.lock import Locked, RunLock, is_locked

HOLD = """
    import sys, time
    from pathlib import Path
    from peftbench.runs.lock import RunLock
    with RunLock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
"""
RACE = """
    import sys, time
    from pathlib import Path
    from peftbench.runs.lock import Locked, RunLock
    print("ready", flush=True)
    for line in sys.stdin:
        folder, start = line.split()
        lock = RunLock(Path(folder))
        while time.time() < float(start):
            pass
        try:
            lock.acquire()
            print("won", flush=True)
        except Locked:
            print("lost", flush=True)
        sys.stdin.readline()
        lock.release()
"""


def start(code: str, *arguments: object) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    process.stdout.readline()
    return process


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen]:
    process = start(HOLD, folder)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def plant(folder: Path, age: float = 0.0, **facts: object) -> Path:
    """Leave a lock as another process would have left it, untouched for `age` seconds."""
    owner = folder / "run.lock" / "0123456789abcdef"
    owner.parent.mkdir(parents=True)
    owner.write_text(json.dumps({"host": "node7", "pid": 4321, "machine": "elsewhere", **facts}))
    touched = time.time() - age
    os.utime(owner, (touched, touched))
    return owner


def owners(folder: Path) -> list[Path]:
    """The files of those who hold the lock, without the folders where they make what they write."""
    return [path for path in (folder / "run.lock").iterdir() if not path.name.startswith(".")]


@contextmanager
def beating(owner: Path) -> Iterator[None]:
    """Touch a lock as its living owner does, only faster."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            touched = owner.stat().st_mtime + 0.1
            os.utime(owner, (touched, touched))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "run"
    with RunLock(folder) as lock:
        assert is_locked(folder)
        lock.check()
        with pytest.raises(Locked), RunLock(folder):
            pass
    assert not is_locked(folder)
    assert list(folder.iterdir()) == []
    with lock:  # the same object may be used again
        assert is_locked(folder)


def test_the_error_names_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(Locked) as caught:
            RunLock(tmp_path).acquire()
        message = str(caught.value)
        assert f"process {process.pid} on host {os.uname().nodename}" in message
        assert "last sign of life" in message
        assert "\n" not in message
        assert isinstance(caught.value, PeftbenchError)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run.lock"]
        process.stdin.write("\n")
        process.wait(timeout=10)
        assert not is_locked(tmp_path)


@pytest.mark.parametrize("reaped", [False, True])
def test_a_killed_holder_is_taken_over_at_once(tmp_path: Path, reaped: bool) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait(timeout=10)
        else:  # a zombie: dead, while its number still answers
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert (tmp_path / "run.lock").exists()
        assert not is_locked(tmp_path)
        with RunLock(tmp_path):
            assert is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_reused_process_number_is_no_sign_of_life(tmp_path: Path) -> None:
    machine = processes.machine()
    if machine is None or processes.process_start(os.getpid()) is None:
        pytest.skip("this system does not say when a process started")
    plant(tmp_path, machine=machine, pid=os.getpid(), process_start=1)
    with RunLock(tmp_path):
        pass


def test_a_sleeping_process_of_this_machine_keeps_its_lock(tmp_path: Path) -> None:
    if processes.machine() is None:
        pytest.skip("this system does not name its boot")
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        (owner,) = owners(tmp_path)
        os.utime(owner, (0, 0))
        with pytest.raises(Locked):
            RunLock(tmp_path).acquire()


def test_a_lock_from_elsewhere_holds_while_its_owner_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "_WATCH_SECONDS", 0.2)
    # Even when its process number happens to be free here.
    for name, pid in (("one", 4321), ("other", dead_pid())):
        owner = plant(tmp_path / name, age=90, pid=pid)
        with (
            beating(owner),
            pytest.raises(Locked, match=rf"process {pid} on host node7 .* last sign of life (89|90) s ago"),
        ):
            RunLock(tmp_path / name).acquire()
        assert owner.exists()
        told = capsys.readouterr().err
        assert re.search(rf"held by process {pid} on host node7: waiting up to (30|31) s", told)
        assert told.count("\n") == 1


def test_a_silent_lock_from_elsewhere_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_WATCH_SECONDS", 0.1)
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", 2.0)
    owner = plant(tmp_path)
    started = time.monotonic()
    with RunLock(tmp_path):
        assert 1.5 < time.monotonic() - started < 10
        assert not owner.exists()


def test_a_clock_that_was_set_back_keeps_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_WATCH_SECONDS", 0.1)
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", 1.0)
    owner = plant(tmp_path, age=-3600)
    with RunLock(tmp_path):
        assert not owner.exists()


def test_an_expired_lock_from_elsewhere_is_taken_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, age=130)
    with RunLock(tmp_path):
        assert capsys.readouterr().err == ""


def test_age_is_judged_by_the_file_systems_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, age=10)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert is_locked(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_lock_that_says_nothing_is_held_until_it_expires(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_WATCH_SECONDS", 0.2)
    owner = plant(tmp_path)
    owner.write_text(content)
    with beating(owner), pytest.raises(Locked):
        RunLock(tmp_path).acquire()
    os.utime(owner, (0, 0))
    with RunLock(tmp_path):
        pass


def test_what_killed_askers_left_is_removed(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".run.lock.aa.tmp", tmp_path / ".run.lock.bb.tmp"
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "x").write_text("")
    os.utime(old, (0, 0))
    with RunLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [fresh]


def test_an_empty_lock_folder_is_free(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    assert not is_locked(tmp_path)
    with RunLock(tmp_path):
        assert is_locked(tmp_path)


@pytest.mark.parametrize("state", ["stale", "free"])
def test_of_racing_processes_exactly_one_wins(tmp_path: Path, state: str) -> None:
    racers = [start(RACE) for _ in range(3)]
    try:
        for number in range(40):
            folder = tmp_path / str(number)
            folder.mkdir()
            if state == "stale":
                plant(folder, age=1000)
            for racer in racers:
                racer.stdin.write(f"{folder} {time.time() + 0.01}\n")
            told = sorted(racer.stdout.readline().strip() for racer in racers)
            assert told == ["lost", "lost", "won"], f"round {number}"
            assert len(owners(folder)) == 1
            for racer in racers:
                racer.stdin.write("\n")
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate(timeout=10)


def test_a_slow_breaker_cannot_break_the_lock_that_came_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = plant(tmp_path, age=1000)
    seen = locks._owner(tmp_path)
    with RunLock(tmp_path):
        # The slow one judged the stale lock before the other took it over, and acts on it now.
        answers = [seen]
        real = locks._owner
        monkeypatch.setattr(locks, "_owner", lambda folder: answers.pop() if answers else real(folder))
        with pytest.raises(Locked):
            RunLock(tmp_path).acquire()
        assert not answers
        assert not stale.exists()
        assert is_locked(tmp_path)


def test_the_heartbeat_keeps_a_lock_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    with RunLock(tmp_path):
        (owner,) = owners(tmp_path)
        os.utime(owner, (0, 0))
        deadline = time.monotonic() + 5
        while owner.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - owner.stat().st_mtime < 60


def test_a_holder_notices_that_it_was_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(processes, "machine", lambda: "another")
    slept = RunLock(tmp_path)
    slept.acquire()
    monkeypatch.undo()
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", -1.0)  # whatever its last touch, it seems dead
    taker = RunLock(tmp_path)
    taker.acquire()
    taker._stop.set()  # its own beat is not to be seen
    taker._thread.join()
    (owner,) = owners(tmp_path)
    os.utime(owner, (0, 0))

    with pytest.raises(TakenOverError, match="another process took"):
        slept.check()
    slept._thread.join(timeout=60)
    assert not slept._thread.is_alive()
    assert owner.stat().st_mtime == 0  # it touched nothing that is not its own
    slept.release()
    assert owners(tmp_path) == [owner]
    taker.check()
    taker.release()


def test_a_forked_child_does_not_release(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from peftbench.runs.lock import RunLock, is_locked
        folder = Path(sys.argv[1])
        lock = RunLock(folder)
        lock.acquire()
        child = os.fork()
        if child == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        print("kept" if is_locked(folder) else "lost", flush=True)
    """
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stdout == "kept\n", process.stderr


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output_dir="):
        RunLock(tmp_path / "file" / "run").acquire()


def test_what_a_lock_says_moves_no_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "_WATCH_SECONDS", 0.1)
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", 0.5)
    owner = plant(tmp_path)
    owner.write_text(json.dumps({"host": "\x1b[31mnode\n7", "pid": 1}))
    with RunLock(tmp_path):
        pass
    told = capsys.readouterr().err
    assert "\x1b" not in told and r"\x1b[31mnode 7" in told and told.count("\n") == 1

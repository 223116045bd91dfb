"""Signals while a run trains: noted, read where it does no harm; the same signal again ends the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from peftbench.cli import main
from peftbench.interruption import check_interrupted, deferred_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_raised_at_the_next_check(number):
    before = signal.getsignal(number)
    reached = False
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), number)
        reached = True
        check_interrupted()
    assert reached and signal.getsignal(number) is before
    check_interrupted()  # nothing is left of it


def test_a_signal_behind_the_last_check_shows_at_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done


def test_without_a_signal_and_in_another_thread_nothing_happens():
    with deferred_interrupts():
        check_interrupted()
    found = []

    def work():
        with deferred_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize(
    ("signals", "code", "printed"), [(["SIGINT", "SIGINT"], 130, ""), (["SIGINT", "SIGTERM"], 0, "on")]
)
def test_only_the_same_signal_again_ends_the_process_at_once(signals, code, printed):
    script = "\n".join(
        [
            "import os, signal",
            "from contextlib import suppress",
            "from peftbench.interruption import deferred_interrupts",
            "with suppress(KeyboardInterrupt), deferred_interrupts():",
            *(f"    os.kill(os.getpid(), signal.{name})" for name in signals),
            "    print('on', flush=True)",
        ]
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.returncode == code and found.stdout.strip() == printed


def test_behind_the_last_line_of_a_command_signals_do_nothing(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peftbench", "--version"])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main() == 0
        for number in before:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before[signal.SIGINT], "of a call of Python code they still do"
    signal.signal(signal.SIGTERM, before[signal.SIGTERM])

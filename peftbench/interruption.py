"""How a command is asked to stop: Ctrl-C, or SIGTERM, which a cluster sends before it takes a machine back.

An exception that a signal raises wherever the interpreter happens to be, in a hook or in autograd's own code, can end
the process with SIGABRT. While a run trains, a signal therefore only leaves a note, which is read between two steps.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peftbench.errors import INTERRUPTED

_received: set[int] = set()


def interrupt_on_sigterm() -> None:
    """Let SIGTERM raise KeyboardInterrupt as Ctrl-C does, so that a command leaves nothing half-written.

    Outside of the main thread, which alone gets signals, nothing changes.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def ignore_interrupts() -> None:
    """Ignore signals from now on: after a command's last line they would only make Python's end print tracebacks."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Inside the block a signal is noted for `check_interrupted`; the same signal again ends the process at once.

    Raises KeyboardInterrupt at the block's end where a signal came behind the last check, or made what the block
    called fail (a child process gets Ctrl-C too). Outside of the main thread, which alone gets signals, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    before = {number: signal.signal(number, _note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
        check_interrupted()
    except Exception:
        check_interrupted()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def check_interrupted() -> None:
    """Raise KeyboardInterrupt where a signal has come: called between steps, and before what takes long."""
    if _received:
        raise KeyboardInterrupt


def _note(number: int, frame: Any) -> None:
    if number in _received:
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
        os._exit(INTERRUPTED)
    _received.add(number)

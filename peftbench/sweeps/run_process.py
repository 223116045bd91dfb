"""A run in a process of its own, forked from one that has imported everything and computed nothing.

The memory of every run is so measured from the same start, nothing of an earlier run is left, and a run that the
system kills takes no other along. Only on Linux: elsewhere torch may not be forked, and runs share the process.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from peftbench import cli
from peftbench.errors import INTERRUPTED, LostRunError, PeftbenchError
from peftbench.interruption import interrupt_on_sigterm

AVAILABLE = sys.platform == "linux"
_IMPORTED = ["peftbench.sweeps.imported"]
_GRACE_SECONDS = 30.0  # for an interrupted run to be recorded


def run_in_process(function: Callable[..., Any], *args: Any) -> None:
    """Call a function in a process of its own and wait for it; raises what it raised.

    Raises LostRunError where the process ended without a word, KeyboardInterrupt where it was interrupted.
    """
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # in a worker of joblib: nobody else knows it
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, *args))
    process.start()
    sender.close()
    try:
        error = _answer(receiver, process.sentinel)
        process.join()
    except BaseException:  # interrupted: the run is to say so in its record
        process.terminate()
        process.join(_GRACE_SECONDS)
        process.kill()
        raise
    if error is not None:
        raise error
    if process.exitcode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.exitcode:
        raise LostRunError(_how_it_ended(process.exitcode))


def _answer(receiver: Connection, sentinel: int) -> Exception | None:
    """Wait for what the function raised; None where it raised nothing, or its process could not say."""
    wait([receiver, sentinel])
    try:
        error: Exception | None = receiver.recv() if receiver.poll() else None
    except EOFError:
        return None
    return error


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), as the system does when memory runs out"
    if exit_code is not None and exit_code < 0:
        return f"its process was ended by {signal.Signals(-exit_code).name}"
    return f"its process ended with exit code {exit_code}"


def _call(sender: Connection, function: Callable[..., Any], *args: Any) -> None:
    """Be the process."""
    cli.STARTED = time.time()
    os.setpgrp()  # Ctrl-C reaches the command, which passes it on, once
    interrupt_on_sigterm()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(*args)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except PeftbenchError as error:
        sender.send(error.with_traceback(None))
    except Exception as error:
        error.add_note(traceback.format_exc())
        sender.send(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

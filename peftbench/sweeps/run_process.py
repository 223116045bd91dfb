"""A run in a process of its own, forked from one that has imported everything and computed nothing.

The memory of every run is so measured from the same start, nothing of an earlier run is left, and a run that the
system kills takes no other along. Elsewhere than on Linux torch may not be forked, and such a process starts anew.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from peftbench import cli
from peftbench.errors import INTERRUPTED, LostRunError, PeftbenchError
from peftbench.interruption import interrupt_on_sigterm

IS_CHEAP = sys.platform == "linux"  # where it is not, starting a process costs seconds
_IMPORTED = ["peftbench.sweeps.imported"]
_GRACE_SECONDS = 30.0  # for an interrupted run to be recorded
_NOTHING: Mapping[str, str] = {}


class RunProcess:
    """A function that is being called in a process of its own, in this one's environment with some of it changed."""

    def __init__(self, function: Callable[..., Any], *args: Any, environment: Mapping[str, str] = _NOTHING) -> None:
        context: Any = multiprocessing.get_context("forkserver" if IS_CHEAP else "spawn")
        if IS_CHEAP:
            context.set_forkserver_preload(_IMPORTED)
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_call, args=(sender, {**os.environ, **environment}, function, *args))
        self._process.start()
        sender.close()

    def result(self) -> Any:
        """Wait for the call and return what it returned; raises what it raised.

        Raises LostRunError where the process ended without a word, KeyboardInterrupt where it was interrupted.
        """
        wait(self._handles())
        try:
            returned, error = self._receiver.recv() if self._receiver.poll() else (None, None)
        except EOFError:
            returned, error = None, None
        self._process.join()
        if error is not None:
            raise error
        if self._process.exitcode == INTERRUPTED:
            raise KeyboardInterrupt
        if self._process.exitcode:
            raise LostRunError(_how_it_ended(self._process.exitcode))
        return returned

    def _handles(self) -> list[Connection | int]:
        return [self._receiver, self._process.sentinel]


def run_in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own and return what it returns; raises as `RunProcess.result`."""
    process = RunProcess(function, *args)
    try:
        return process.result()
    except BaseException:
        end([process])
        raise


def first_done(processes: Collection[RunProcess]) -> list[RunProcess]:
    """Wait until one of the processes has answered or ended, and return those that have."""
    ready = wait([handle for process in processes for handle in process._handles()])
    return [process for process in processes if any(handle in ready for handle in process._handles())]


def end(processes: Collection[RunProcess]) -> None:
    """Interrupt what still runs, and wait until each has said so in its record."""
    for process in processes:
        process._process.terminate()
    until = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        process._process.join(max(0.0, until - time.monotonic()))
        process._process.kill()


def _how_it_ended(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), as the system does when memory runs out"
    if exit_code < 0:
        return f"its process was ended by {signal.Signals(-exit_code).name}"
    return f"its process ended with exit code {exit_code}"


def _call(sender: Connection, environment: dict[str, str], function: Callable[..., Any], *args: Any) -> None:
    """Be the process."""
    cli.STARTED = time.time()
    os.environ.clear()  # it is that of when the server started
    os.environ.update(environment)
    os.setpgrp()  # Ctrl-C reaches the command, which passes it on, once
    interrupt_on_sigterm()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send((function(*args), None))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except PeftbenchError as error:
        sender.send((None, error.with_traceback(None)))
    except Exception as error:
        error.add_note(traceback.format_exc())
        sender.send((None, error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

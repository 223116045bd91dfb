"""A run in a process of its own, forked from one that has imported everything and computed nothing.

The memory of every run is so measured from the same start, nothing of an earlier run is left, and a run that the
system kills takes no other along. Elsewhere than on Linux torch may not be forked, and such a process starts anew.
"""

import atexit
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from peftbench import cli
from peftbench.errors import INTERRUPTED, LostRunError, PeftbenchError, UserError
from peftbench.interruption import interrupt_on_sigterm

IS_CHEAP = sys.platform == "linux"  # where it is not, starting a process costs seconds
_IMPORTED = ["peftbench.sweeps.imported"]
_GRACE_SECONDS = 30.0  # for an interrupted run to be recorded
_LONGEST_FOLDER = 70  # bytes: the server's socket lies in the folder of temporary files, and has 108 for its path


class RunProcess:
    """A function that is being called in a process of its own, in this one's environment with some of it changed."""

    def __init__(self, function: Callable[..., Any], *args: Any, environment: Mapping[str, str] | None = None) -> None:
        forks = IS_CHEAP and len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_FOLDER
        context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload(_IMPORTED)
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_call, args=(sender, os.environ | dict(environment or {}), function, *args)
        )
        try:
            with _interrupts_blocked():
                self._process.start()
        except BaseException:
            if self._process.pid is not None:
                end([self])
            raise
        sender.close()

    def result(self) -> Any:
        """Wait for the call and return what it returned; raises what it raised.

        Raises LostRunError where the process ended without a word, KeyboardInterrupt where it was interrupted.
        """
        wait(self.handles)
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

    @property
    def handles(self) -> list[Connection | int]:
        """What to wait on for the call's answer or the end of its process, see `multiprocessing.connection.wait`."""
        return [self._receiver, self._process.sentinel]

    def interrupt(self) -> None:
        """Send the process SIGTERM, which its run takes for Ctrl-C; return at once."""
        self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait until the process has ended, at most so long."""
        self._process.join(seconds)

    def kill(self) -> None:
        """End the process at once, if it still runs."""
        self._process.kill()


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
    ready = wait([handle for process in processes for handle in process.handles])
    return [process for process in processes if any(handle in ready for handle in process.handles)]


def end(processes: Collection[RunProcess]) -> None:
    """Interrupt what still runs, and wait until each has said so in its record; a second interrupt kills at once."""
    try:
        for process in processes:
            process.interrupt()
        until = time.monotonic() + _GRACE_SECONDS
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process in processes:
            process.kill()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back, and for good from the server that is started here: its imports would end in a traceback."""
    resource_tracker.ensure_running()  # it would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # behind `stty tostop` a group in the background may print, too
    interrupt_on_sigterm()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send((_sendable(function(*args)), None))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except PeftbenchError as error:
        sender.send((None, _sendable(error.with_traceback(None))))
    except Exception as error:
        error.add_note(traceback.format_exc())
        sender.send((None, _sendable(error)))
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out: wandb removes its temporary folders so


def _sendable(answer: Any) -> Any:
    """Return the answer, or for an error that cannot be pickled one of its kind that says the same."""
    try:
        pickle.loads(pickle.dumps(answer))
    except Exception:
        if not isinstance(answer, Exception):
            raise
        kind = next(kind for kind in (UserError, PeftbenchError, RuntimeError, Exception) if isinstance(answer, kind))
        plain = kind(str(answer) or type(answer).__name__)
        for note in getattr(answer, "__notes__", ()):
            plain.add_note(note)
        return plain
    return answer


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

"""Python processes that are forked from one which has imported torch and transformers, instead of started.

Starting a process that trains costs seconds of the processor, nearly all of them for imports. `Popen` and `run` take
what follows `python` on a command line and otherwise behave as subprocess's own: the process has its own number,
exit code, environment, folder, streams and signals, and it imports peftbench itself. They are for tests of what a
process does. Tests of how one starts (Python's options, what is imported, variables that are read on the way) use
subprocess.
"""

import atexit
import contextlib
import functools
import json
import os
import runpy
import signal
import socket
import struct
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

# what peftbench imports of others for a run; peftbench itself stays out, for a test may bring a copy of its own
IMPORTED = (
    "torch.distributed",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.tokenization_utils_tokenizers",
    "hydra",
    "rich.table",
)
# read when Python starts, or by what the server has imported
READ_AT_START = ("PYTHON", "OMP_", "OPENBLAS_", "MKL_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH")
HEEDED = ("PYTHONPATH", "PYTHONSAFEPATH", "TORCHELASTIC_RUN_ID")
NUMBER = struct.Struct("q")


class Popen(subprocess.Popen):
    """subprocess.Popen for the arguments of `python`: ["-m", module, …], ["-c", code, …] or [script, …]."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, restore_signals: Any, gid: Any, gids: Any, uid: Any, umask: Any,
        start_new_session: bool, *rest: Any,
    ) -> None:  # fmt: skip
        environment = dict(os.environ if env is None else env)
        for name, _ in environment.items() ^ os.environ.items():
            if name.startswith(READ_AT_START) and name not in HEEDED:
                raise ValueError(f"{name} is read before a forked process begins: use subprocess")
        request = {
            "argv": [os.fspath(word) for word in args],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": environment,
            "new_session": start_new_session,
        }
        self._answers, theirs = socket.socketpair()
        streams = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        with theirs:
            socket.send_fds(_server(), [b"!"], [theirs.fileno(), *streams])
        self._answers.sendall(json.dumps(request).encode() + b"\n")
        (self.pid,) = NUMBER.unpack(self._answers.recv(NUMBER.size))
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """Wait for the exit status as os.waitpid does for a child."""
        try:
            answer = self._answers.recv(NUMBER.size, socket.MSG_DONTWAIT if wait_flags & os.WNOHANG else 0)
        except BlockingIOError:
            return 0, 0
        self._answers.close()
        return self.pid, NUMBER.unpack(answer)[0]

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):
            with contextlib.ExitStack() as stack:
                stack.callback(self._waitpid_lock.release)
                pid, status = self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)
        return self.returncode


def run(
    argv: list[Any], *, timeout: float = 300, check: bool = False, capture_output: bool = False, **options: Any
) -> subprocess.CompletedProcess:
    """subprocess.run for the arguments of `python`, without `input`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(argv, **options) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(argv, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


@functools.cache
def _server() -> socket.socket:
    """Start the process that is forked from, one for each worker of the tests; it ends when this one does."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


# ---- the server ------------------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    """Fork for each request, until nobody can ask any more; in the process that is asked for, return from here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        mark, received, *_ = socket.recv_fds(requests, 1, 4)
        if not mark:
            sys.exit()
        if os.fork() == 0:
            break
        for fd in received:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    requests.close()
    answers = socket.socket(fileno=received[0])
    request = json.loads(answers.makefile().readline())
    if pid := os.fork():
        for fd in received[1:]:
            os.close(fd)
        with contextlib.suppress(BrokenPipeError):
            answers.sendall(NUMBER.pack(pid))
            answers.sendall(NUMBER.pack(os.waitpid(pid, 0)[1]))
        os._exit(0)
    answers.close()
    _become(request, received[1:])


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Make this process what Python would have started, and run what it is to run."""
    if request["new_session"]:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115, PTH123
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    kind, *rest = request["argv"]
    first = {"-m": request["cwd"], "-c": ""}.get(kind, str(Path(kind).parent))
    sys.path[:1] = [] if os.environ.get("PYTHONSAFEPATH") else [first]
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(rest[0], sys.modules["__main__"].__dict__)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    for module in IMPORTED:
        __import__(module)
    __import__("gc").freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))

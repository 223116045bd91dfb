"""The lock that keeps two processes from training the same run, on one machine or across a cluster.

The lock is a folder, `run.lock/`, that holds one file named by its owner's random token, and `.<token>/`, where
the owner makes what it writes into the run's folder (see `files.guard`). Three operations make it sound, each
atomic on local and shared file systems alike, none of them flock:

- taking it: a folder prepared aside, owner file and all, is renamed to `run.lock`, which the file system
  refuses while a `run.lock` with something in it exists;
- breaking a dead one: the owner's staging folder and file are removed by their names. Tokens are never used
  twice, so a slow breaker cannot hit a lock younger than the one it judged; then all compete for the empty lock as
  above. An owner that only slept finds its staging folder gone, and with it every way to write;
- releasing it: the same, with one's own name.
"""

import contextlib
import errno
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from peftbench.errors import PeftbenchError, TakenOverError, UserError
from peftbench.files import check_regular, guard, make_folder, parse_json, unguard, write_error
from peftbench.runs.processes import process_lives, this_process
from peftbench.terminal import print_error

HEARTBEAT_SECONDS = 15.0
EXPIRY_SECONDS = 120.0

_LOCK = "run.lock"
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_TRIES = 500
_WATCH_SECONDS = 1.0


class Locked(PeftbenchError):  # noqa: N818 - it names a state
    """Another live process trains this run."""


class Owner(NamedTuple):
    """Who holds a lock: what its file says, and when it was last touched (seconds, file system's clock)."""

    path: Path
    facts: Mapping[str, Any]
    touched: float


class RunLock:
    """Hold a run's folder for this process: `with RunLock(folder): …`.

    A thread touches the lock every 15 s. It is dead, and the next who asks gets it, when its process is gone
    from this machine or, for a process that cannot be looked up from here, after 120 s without a touch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: Path | None = None  # the owner's file while this object holds the lock
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock; makes the folder where there is none.

        A holder that cannot be looked up from here is watched until it touches the lock or 120 s are over: a
        job that a cluster queues again after a crash, on another node, so outwaits its dead self.
        Raises Locked, naming host, process and age, where a live process holds it (this one included), and
        UserError where the folder cannot be written.
        """
        make_folder(self.folder)
        try:
            self._file = _take(self.folder)
        except OSError as error:
            raise write_error(self.folder, error) from error
        guard(self.folder, _staging(self._file))
        self._pid = os.getpid()
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, args=(self._file,), name="run-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise TakenOverError if the lock was broken: this process slept so long that it seemed dead.

        Nothing it would write could reach the run's folder; this spares the work until then.
        """
        if self._file is None or not _touch(self._file):
            raise TakenOverError(
                f"another process took {self.folder} over, for this one gave no sign of life for more than"
                f" {EXPIRY_SECONDS:.0f} s: it stops here"
            )

    def release(self) -> None:
        """Give the lock back; leaves anyone else's alone, so that it is safe after a takeover."""
        if self._file is None or self._thread is None or self._pid != os.getpid():
            return  # a forked child holds nothing
        self._stop.set()
        self._thread.join()
        unguard(self.folder)
        with contextlib.suppress(OSError):
            _break(self._file)
            self._file.parent.rmdir()
        self._file = self._thread = None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self, file: Path) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if not _touch(file):
                return


def _touch(file: Path) -> bool:
    """Set the file's time to now, as a sign of life; return False where the lock is no longer this process's."""
    try:
        os.utime(file)  # without a time given, a shared file system takes its server's
    except FileNotFoundError:
        return False
    except OSError:
        pass  # a passing failure of the network or the disk: the next beat is soon enough
    return True


def _take(folder: Path) -> Path:
    """Make this process the owner and return the owner's file; raises Locked, OSError, or UserError for no lock."""
    token = uuid.uuid4().hex
    prepared = folder / f".{_LOCK}.{token}.tmp"
    prepared.mkdir()
    # owners that cannot be looked up from here: their last touch, and when it was seen first
    watched: dict[Path, tuple[float, float]] = {}
    try:
        (prepared / token).write_text(json.dumps(this_process()), encoding="utf-8")
        _staging(prepared / token).mkdir()
        for _ in range(_TRIES):
            if _rename(prepared, folder / _LOCK, token):
                _remove_leftovers(folder)
                return folder / _LOCK / token
            owner = _owner(folder)
            if owner is None:  # released, or broken by another, a moment ago
                time.sleep(0.01)
            elif _is_alive(owner, folder):
                if owner.path not in watched:
                    if process_lives(owner.facts):
                        raise Locked(_locked_message(owner, folder))
                    print_error(_watching_message(owner, folder))
                    watched[owner.path] = owner.touched, time.monotonic()
                touched, since = watched[owner.path]
                if owner.touched != touched:
                    raise Locked(_locked_message(owner, folder))
                if time.monotonic() - since > EXPIRY_SECONDS:  # also where the clock was set back since its last touch
                    _break(owner.path)
                else:
                    time.sleep(_WATCH_SECONDS)
            else:
                _break(owner.path)
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    raise UserError(f"{folder / _LOCK} holds something that is no lock. Delete it if nothing trains this run.")


def _staging(owner: Path) -> Path:
    """Return the folder in which the owner of this file makes what it writes."""
    return owner.with_name(f".{owner.name}")


def _break(owner: Path) -> None:
    """Remove a lock: first its owner's staging folder, so that it cannot write once another process owns it."""
    staging = _staging(owner)
    for _ in range(_TRIES):  # again where it made another file meanwhile
        shutil.rmtree(staging, ignore_errors=True)
        if not staging.exists():
            break
    else:
        raise UserError(f"Cannot remove {staging}, which another process has left: delete it.")
    owner.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove the prepared folders of processes that were killed while they asked for the lock."""
    now = _clock(folder)
    for prepared in folder.glob(f".{_LOCK}.*.tmp"):
        with contextlib.suppress(OSError):
            if now - prepared.stat().st_mtime > EXPIRY_SECONDS:
                shutil.rmtree(prepared)


def _rename(prepared: Path, lock: Path, token: str) -> bool:
    """Rename `prepared` to `lock`; return False where there is a lock already."""
    try:
        # Some systems refuse to rename over a folder even when it is empty.
        with contextlib.suppress(OSError):
            lock.rmdir()
        prepared.rename(lock)
    except OSError as error:
        # On NFS a rename may succeed and its repeated request fail.
        if (lock / token).exists():
            return True
        if error.errno in _TAKEN:
            return False
        raise
    return True


def is_locked(folder: Path) -> bool:
    """Say whether a live process holds the lock of the run in `folder`; one that cannot be read counts."""
    try:
        owner = _owner(folder)
    except OSError:
        return True
    return owner is not None and _is_alive(owner, folder)


def _owner(folder: Path) -> Owner | None:
    """Return the lock's owner, None where nobody holds it."""
    try:
        # A name with a dot in front is a shared file system's own, for a file removed while open.
        paths = [path for path in (folder / _LOCK).iterdir() if not path.name.startswith(".")]
        if not paths:
            return None
        check_regular(paths[0])
        with paths[0].open(encoding="utf-8", errors="replace") as file:
            touched = os.fstat(file.fileno()).st_mtime  # of the open file, which NFS does not cache
            text = file.read()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    try:
        facts = parse_json(text)
    except ValueError:
        facts = None
    return Owner(paths[0], facts if isinstance(facts, dict) else {}, touched)


def _is_alive(owner: Owner, folder: Path) -> bool:
    alive = process_lives(owner.facts)
    if alive is None:
        alive = _clock(folder) - owner.touched <= EXPIRY_SECONDS
    return alive


def _clock(folder: Path) -> float:
    """Return the time in seconds by the clock that stamps the files in `folder`."""
    probe = folder / f".clock.{uuid.uuid4().hex}.tmp"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:  # a folder only read here; then this machine's clock is the best there is
        return time.time()
    return now


def _locked_message(owner: Owner, folder: Path) -> str:
    return (
        f"{folder} is being trained by {_who(owner)} (since {owner.facts.get('since', '?')}, "
        f"last sign of life {_silence(owner, folder):.0f} s ago). Wait for it, or stop it."
    )


def _watching_message(owner: Owner, folder: Path) -> str:
    wait = EXPIRY_SECONDS - _silence(owner, folder)
    return f"{folder} is held by {_who(owner)}: waiting up to {wait:.0f} s for its next sign of life"


def _who(owner: Owner) -> str:
    return f"process {owner.facts.get('pid', '?')} on host {owner.facts.get('host', '?')}"


def _silence(owner: Owner, folder: Path) -> float:
    return max(0.0, _clock(folder) - owner.touched)

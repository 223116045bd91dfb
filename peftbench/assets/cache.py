"""The cache folder, and what is remembered there: the SHA-256 of files that have not changed since."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from peftbench.errors import UserError
from peftbench.files import atomic_write, is_there

# A file written to again within the clock's resolution would keep its times: so young a stamp proves nothing.
_YOUNG_SECONDS = 2.0

Stamp = tuple[int, int, int, int]
Digests = dict[str, tuple[Stamp, str]]
_digests: Digests = {}  # of this process


def cache_folder() -> Path:
    """Return the folder of fetched packages: `$PEFTBENCH_CACHE`, else `~/.cache/peftbench`."""
    return Path(os.environ.get("PEFTBENCH_CACHE") or "~/.cache/peftbench").expanduser()


def move_into_place(made: Path, target: Path, damaged: Path, is_whole: Callable[[Path], bool]) -> None:
    """Rename a folder made beside the cache's to its name there, an earlier one that is not whole aside to `damaged`.

    Where another process was faster, its folder stays. Raises OSError where it cannot be renamed.
    """
    if target.exists() and not is_whole(target):
        with contextlib.suppress(FileNotFoundError):
            target.rename(damaged)
    try:
        made.rename(target)
    except OSError:
        if not is_whole(target):
            raise


def unwritable(place: Path, error: OSError) -> UserError:
    """Return the error of a cache that cannot be written at `place`."""
    return UserError(
        f"cannot write {error.filename or place}: {error.strerror or error}; "
        "free space there or set PEFTBENCH_CACHE to another folder"
    )


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits.

    The file is read once: as long as its size, times and inode stay, the digest is remembered, in this process and
    in the cache folder. Raises OSError where it cannot be read.
    """
    path = path.resolve()
    name = str(path)
    if name not in _digests:
        _digests.update(_remembered())
    before = _digests.get(name)
    digest = known_digest(path, _digests)
    if _digests.get(name) != before:
        _remember()
    return digest


def known_digest(path: Path, known: Digests) -> str:
    """Return a file's SHA-256 from `known` where its stamp is the same, else read it; a file that has settled is added.

    Raises OSError where it cannot be read.
    """
    stamp, name = _stamp(path), str(path)
    if name in known and known[name][0] == stamp:
        return known[name][1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _stamp(path) == stamp and time.time_ns() - max(stamp[1:3]) > _YOUNG_SECONDS * 1e9:
        known[name] = stamp, digest
    return digest


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _path() -> Path:
    return cache_folder() / "digests.json"


def _remembered() -> Digests:
    """Read the digests that earlier processes have left; a damaged file holds none."""
    try:
        entries = json.loads(_path().read_text("utf-8"))
        return {str(name): (tuple(map(int, stamp)), str(digest)) for name, (stamp, digest) in entries.items()}  # type: ignore[misc]
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember() -> None:
    """Add this process's digests to the file; files that are gone are forgotten."""
    digests = {name: entry for name, entry in (_remembered() | _digests).items() if is_there(Path(name))}
    with contextlib.suppress(OSError, UserError):  # a cache that cannot be written costs time, nothing else
        cache_folder().mkdir(parents=True, exist_ok=True)
        with atomic_write(_path()) as file:
            json.dump(digests, file)

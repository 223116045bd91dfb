"""SHA-256 of files, computed once in a process as long as a file's size and time stay the same."""

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from peftbench.files import check_regular

_SETTLED_SECONDS = 1.0  # a file changed again within its clock's tick keeps its time
_known: dict[tuple[str, int, int, int], str] = {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; raises OSError where it cannot be read."""
    check_regular(path)
    with path.open("rb") as file:
        stat = path.stat()
        key = (str(path.absolute()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key in _known:
            return _known[key]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - stat.st_mtime > _SETTLED_SECONDS:
        _known[key] = digest
    return digest


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of each file by its path in `folder`; those that are not there are left out."""
    return {name: sha256(folder / name) for name in names if (folder / name).is_file()}


def first_damaged(folder: Path, files: Mapping[str, str]) -> str | None:
    """Return the first of `files` whose content differs from its digest or that is gone; None where all are whole."""
    for name, expected in files.items():
        try:
            if sha256(folder / name) != expected:
                return name
        except OSError:
            return name
    return None

"""Writing files so that a reader sees the old content or the new, never half of it.

A folder may be guarded: whoever works on it has a staging folder, which is taken away with that right. Everything
written is then made in the staging folder and put in place by one rename, and everything removed is renamed into it
first: without the staging folder, neither can happen, however long a process slept before it tries.
"""

import errno
import json
import math
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from peftbench.errors import TakenOverError, UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITE_FAILED = _DISK_FULL | {errno.EIO, errno.EROFS}
_GONE = (FileNotFoundError, NotADirectoryError)

_staging: dict[Path, Path] = {}  # guarded folder → where what is written to it is made


def guard(folder: Path, staging: Path) -> None:
    """Let everything written beneath `folder` be made in `staging` from now on, on the same file system."""
    _staging[folder.absolute()] = staging


def unguard(folder: Path) -> None:
    """Write beneath `folder` directly again."""
    _staging.pop(folder.absolute(), None)


def _staged(path: Path) -> Path | None:
    """Return a new path to make `path` at or to move it to, None where no guard is over it.

    Raises UserError where a symbolic link leads from the guarded folder to elsewhere.
    """
    if not _staging:
        return None
    for parent in path.absolute().parents:
        if parent in _staging:
            return _staging[parent] / f"{path.name}.{uuid.uuid4().hex}.tmp"
        if parent.is_symlink() and any(folder in _staging for folder in parent.parents):
            raise UserError(f"{parent} is a symbolic link, through which nothing is written: remove it")
    return None


def _check_staging(staged: Path | None, path: Path) -> None:
    """Raise TakenOverError where a write or removal of `path` failed because the staging folder is gone."""
    if staged is not None and not staged.parent.is_dir():
        folder = next(parent for parent in path.absolute().parents if parent in _staging)
        raise TakenOverError(
            f"another process took {folder} over, for this one gave no sign of life for too long: it stops here"
        )


@contextmanager
def atomic_write(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Yield a file that becomes `path` when the block ends, all at once and safely on disk.

    If the block raises, or the process dies, `path` keeps what it held. Text is UTF-8 with `\\n` line ends.
    Raises UserError where the system refuses the write (full disk, no permission, no such folder), and
    TakenOverError where the folder was guarded and the guard has been taken away.
    """
    staged = _staged(path)
    temporary = staged or path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        # Not tempfile: its files are readable by their owner alone, and a record is often shared by a group.
        with _open(temporary, binary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        refused = _refused_write(error, temporary)
        if isinstance(refused, _GONE):
            _check_staging(staged, path)
        if refused is None:
            raise
        raise write_error(path, refused) from error


def _open(path: Path, binary: bool) -> IO[Any]:
    return path.open("wb") if binary else path.open("w", encoding="utf-8", newline="\n")


def _refused_write(error: BaseException, temporary: Path) -> OSError | None:
    """Find the refused write behind `error`; torch.save hides it behind a RuntimeError of its own."""
    link: BaseException | None = error
    while link is not None:
        # An OSError that names another file comes from the caller's block and is not about this write.
        ours = isinstance(link, OSError) and str(link.filename) in ("None", str(temporary))
        if isinstance(link, OSError) and ours and (link is error or link.errno in _WRITE_FAILED):
            return link
        link = link.__cause__ or link.__context__
    return None


def write_error(path: Path, error: OSError) -> UserError:
    """Say in one line which path could not be written, why, and what to do."""
    reason = error.strerror or str(error)
    room = "Free some space, or choose" if error.errno in _DISK_FULL else "Choose"
    return UserError(f"Cannot write {path}: {reason}. {room} another folder (of runs and tables: output_dir=…).")


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents; raises UserError where that is not possible."""
    staged = _staged(folder)
    try:
        if staged is None:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            staged.mkdir()
            staged.rename(folder)
    except OSError as error:
        _check_staging(staged, folder)
        raise write_error(folder, error) from error


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there; raises as `atomic_write` does."""
    staged = _staged(path)
    try:
        if staged is not None:
            path.rename(staged)
            path = staged
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except _GONE:
        _check_staging(staged, path)
    except OSError as error:
        raise write_error(path, error) from error


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder` and its folders; only for the one who holds the run's lock."""
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in folder.glob(pattern):
            if path.is_file() and (path.parent == folder or not path.parent.is_symlink()):
                remove(path)


def expanded(path: str | Path) -> Path:
    """Return a path that a user typed with the folder that `~` stands for; a `~name` of no user stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_there(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Tell whether a path that a user typed is there, or is of a `kind`: Path.is_file, Path.is_dir.

    One that the system will not look at is not there: a text that is too long for a name, a folder without permission.
    """
    try:
        return kind(path)
    except OSError:
        return False


def check_regular(path: Path) -> None:
    """Raise OSError unless `path` is a file with an end: a pipe or a device would keep its reader for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def parse_json(text: str | bytes, twice: bool = True) -> Any:
    """Return what JSON text holds; raises ValueError, also where it is nested too deeply to be read.

    Where an object says a key `twice` the last counts, as in JSON's own readers; without, that is a ValueError.
    """
    try:
        return json.loads(text, object_pairs_hook=None if twice else _each_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it says {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def is_number(value: Any) -> bool:
    """Tell whether what a file holds is a number that can be computed with: not true, NaN, or of 400 digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_unicode(text: str) -> bool:
    """Tell whether a text holds characters alone: half of a surrogate pair can be neither tokenized nor written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN and infinity become null."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def plain(value: Any) -> Any:
    """Turn `value` into what JSON can hold: arrays to lists, paths to text, NaN and infinity to None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(entry) for entry in value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays, without importing either
        return plain(value.tolist())
    return str(value)

"""The archive of a task's data, unpacked into the cache once, and again where a file of it has gone."""

import json
import os
import tempfile
from pathlib import Path

from peftbench.assets.cache import cache_folder, file_digest, move_into_place, unwritable
from peftbench.assets.unpack import unpack
from peftbench.errors import UserError

_STAMPS = ".stamps.json"


def unpacked_archive(archive: Path) -> Path:
    """Return the folder of an archive's contents; where all lies in one folder, that one.

    Raises UserError for a damaged archive, one that cannot be read, or a cache that cannot be written.
    """
    try:
        digest = file_digest(archive)
    except OSError as error:
        raise UserError(f"cannot read {archive}: {error.strerror}") from error
    folder = cache_folder() / "archives" / f"{archive.name.removesuffix('.tar.gz')}-{digest[:8]}"
    try:
        if not _is_whole(folder):
            _unpack(archive, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    inside = [path for path in folder.iterdir() if path.name != _STAMPS]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _unpack(archive: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        unpacked = Path(temporary, "unpacked")
        unpacked.mkdir()
        unpack(archive, None, unpacked)
        (unpacked / _STAMPS).write_text(json.dumps(_stamps(unpacked)), "utf-8")
        move_into_place(unpacked, folder, Path(temporary, "incomplete"), _is_whole)


def _is_whole(folder: Path) -> bool:
    """Tell whether all files that were unpacked are there, each of its size and time.

    A copy that nothing can be written to may have other times.
    """
    try:
        kept, found = json.loads((folder / _STAMPS).read_text("utf-8")), _stamps(folder)
        return bool(kept == found or (not os.access(folder, os.W_OK) and _sizes(kept) == _sizes(found)))
    except (OSError, ValueError, AttributeError, TypeError, IndexError):
        return False


def _sizes(stamps: dict[str, list[int]]) -> dict[str, int]:
    return {name: stamp[0] for name, stamp in stamps.items()}


def _stamps(folder: Path) -> dict[str, list[int]]:
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file() and path.name != _STAMPS}
    return {path.relative_to(folder).as_posix(): [it.st_size, it.st_mtime_ns] for path, it in files.items()}

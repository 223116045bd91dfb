"""Zips and tars: members are written one by one, and none outside the folder it belongs to."""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from peftbench.errors import UserError

# by path inside the archive, how each regular file is opened
Members = Mapping[str, Callable[[], IO[bytes]]]


def unpack(path: Path, folder: str | None, target: Path) -> None:
    """Write the members under `folder` (all where None) to `target`, their paths relative to `folder`.

    Raises UserError where there are none, one points outside, or the archive is damaged.
    """
    inside = PurePosixPath(folder or ".")
    with _members(path) as members:
        chosen = [name for name in members if PurePosixPath(name).is_relative_to(inside)]
        if not chosen:
            raise UserError(f"{path.name} has no folder {folder}")
        for name in chosen:
            relative = PurePosixPath(name).relative_to(inside)
            destination = target / relative
            within = destination.resolve().is_relative_to(target.resolve())
            if not within or ".." in relative.parts or "\\" in name:
                raise UserError(f"{path.name} was not unpacked: {name!r} points outside its folder")
            destination.parent.mkdir(parents=True, exist_ok=True)
            with members[name]() as packed, destination.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)


def append_member(path: Path, member: str, joined: IO[bytes]) -> None:
    """Append to `joined` the one file in an archive that is called `member`, wherever it lies."""
    with _members(path) as members:
        found = [name for name in members if PurePosixPath(name).name == member]
        if len(found) != 1:
            raise UserError(f"{path.name} must hold one {member}, but holds {len(found)}")
        with members[found[0]]() as packed:
            shutil.copyfileobj(packed, joined, 1 << 20)


@contextmanager
def _members(path: Path) -> Iterator[Members]:
    """Open an archive: a tar where its name says so, else a zip. Links and devices of a tar are left out."""
    try:
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as tar:
                yield {info.name: partial(_opened, tar, info) for info in tar if info.isreg()}
        else:
            with zipfile.ZipFile(path) as archive:
                yield {info.filename: partial(archive.open, info) for info in archive.infolist() if not info.is_dir()}
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path.name} is damaged: {error}; try again") from error


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None  # of a regular file
    return file

"""Zips: members are written one by one, and none outside the folder it belongs to."""

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from peftbench.errors import UserError


def unpack(path: Path, folder: str | None, target: Path) -> None:
    """Write the members under `folder` (all where None) to `target`, their paths relative to `folder`.

    Raises UserError where there are none, one points outside, or the zip is damaged.
    """
    inside = PurePosixPath(folder or ".")
    with _opened(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        chosen = [info for info in members if PurePosixPath(info.filename).is_relative_to(inside)]
        if not chosen:
            raise UserError(f"{path.name} has no folder {folder}")
        for info in chosen:
            relative = PurePosixPath(info.filename).relative_to(inside)
            destination = target / relative
            within = destination.resolve().is_relative_to(target.resolve())
            if not within or ".." in relative.parts or "\\" in info.filename:
                raise UserError(f"{path.name} was not unpacked: {info.filename!r} points outside its folder")
            destination.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as packed, destination.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)


def append_part(path: Path, part_name: str, joined: IO[bytes]) -> None:
    """Append to `joined` the one member of a zip that is called `part_name`, wherever it lies."""
    with _opened(path) as archive:
        parts = [name for name in archive.namelist() if PurePosixPath(name).name == part_name]
        if len(parts) != 1:
            raise UserError(f"{path.name} must hold one {part_name}, but holds {len(parts)}")
        with archive.open(parts[0]) as part:
            shutil.copyfileobj(part, joined, 1 << 20)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path.name} is damaged: {error}; try again") from error

"""SHA-256 of files, computed once in a process as long as a file does not change."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from peftbench.assets.cache import Digests, known_digest
from peftbench.files import check_regular

_known: Digests = {}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal; raises OSError where it cannot be read."""
    check_regular(path)
    return known_digest(path.absolute(), _known)


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

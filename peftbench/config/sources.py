"""What a config may say of where an asset comes from: nothing that leads out of the cache or into a command line.

A record, a table or a config may come from somebody else. Its package goes to pip and its paths are written to.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from packaging.version import InvalidVersion, Version

from peftbench.errors import UserError

_PACKAGE_NAME = re.compile(r"[A-Z0-9]|[A-Z0-9][A-Z0-9._-]*[A-Z0-9]", re.IGNORECASE)  # PEP 508
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


def check_source(asset: Any, group: str) -> None:
    """Raise UserError for a field of the model or task `asset` that is not what it must be.

    `group`, model or task, is where the line says the field stands. The folder of a local asset is the user's to
    choose: from it is only read.
    """
    for number, package in enumerate(asset.packages):
        _check_package(package, f"{group}.packages[{number}]")
    if asset.id is not None:
        _check(f"{group}.id", asset.id, _is_repository, "a repository of the hub: OWNER/NAME")
    if asset.revision is not None:
        _check(f"{group}.revision", asset.revision, _is_revision, "a branch, tag or commit")
    if asset.archive is not None:
        _check(f"{group}.archive", asset.archive, _is_file_name, "a file's name alone, without a folder")
    if asset.folder is not None:
        _check(f"{group}.folder", asset.folder, _is_inside, "a path inside the package, without ..")
    for name, digest in asset.files.items():
        if asset.source == "local":
            continue
        _check(f"{group}.files", name, _is_inside, "a path inside the package, without ..")
        _check(f"{group}.files.{name}", digest, _is_sha256, "a SHA-256: 64 hexadecimal digits")


def _check_package(package: dict[str, str], where: str) -> None:
    keys = ("name", "version", "sha256")
    if set(package) - {"file"} != set(keys):
        raise UserError(f"{where} must have {', '.join(keys)}, may have file, and nothing else")
    _check(f"{where}.name", package["name"], lambda name: bool(_PACKAGE_NAME.fullmatch(name)), "a package's name")
    _check(f"{where}.version", package["version"], _is_version, "a version as PEP 440 writes them, e.g. 1.0.2")
    _check(f"{where}.sha256", package["sha256"], _is_sha256, "a SHA-256: 64 hexadecimal digits")
    if "file" in package:
        _check(f"{where}.file", package["file"], _is_tar, "the name of a .tar.gz alone, without a folder")


def _check(shown: str, value: str, valid: Callable[[str], bool], must_be: str) -> None:
    if not valid(value):
        raise UserError(f"{shown}={value!r} must be {must_be}")


def _is_version(text: str) -> bool:
    try:
        return bool(Version(text)) and text == text.strip()
    except InvalidVersion:
        return False


def _is_sha256(text: str) -> bool:
    return bool(_SHA256.fullmatch(text))


def _is_repository(text: str) -> bool:
    return bool(_REPOSITORY.fullmatch(text)) and ".." not in text


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def _is_file_name(text: str) -> bool:
    return _is_inside(text) and "/" not in text


def _is_tar(text: str) -> bool:
    return _is_file_name(text) and text.endswith(".tar.gz")


def _is_inside(text: str) -> bool:
    path = PurePosixPath(text)
    odd = any(letter in text for letter in "\\:") or not text.isprintable()
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and not odd

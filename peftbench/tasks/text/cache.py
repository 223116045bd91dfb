"""Tokenized splits on disk: found again by what they were made from, and mapped into memory instead of read."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftbench import __version__
from peftbench.assets.cache import cache_folder, file_digest
from peftbench.errors import UserError
from peftbench.files import atomic_write
from peftbench.tasks.text.batching import EncodedTexts

# fewer rows are tokenized about as fast as a file is found
LEAST_ROWS = 2000
MOST_BYTES = 4 * 2**30  # of all files together
_FORMAT = 1  # to be raised where tokens are laid out otherwise
_OFFSETS = "offsets"
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def cached(
    encode: Callable[[], EncodedTexts], checksum: str, labels: torch.Tensor | None, tokenizer: Any, max_length: int
) -> EncodedTexts:
    """Return what `encode` gives, from the cache folder where it is there.

    Args:
        encode: tokenizes the split; called where the cache does not have it whole.
        checksum: of the split's texts. labels: of its rows; they are not kept.
        tokenizer: loaded from a folder; without files there, nothing is cached.
        max_length: tokens that texts are cut to.
    """
    key = _key(checksum, tokenizer, max_length)
    if key is None:
        return encode()
    path = cache_folder() / "tokenized" / f"{key}.safetensors"
    found = _read(path, key, labels)
    if found is not None:
        with contextlib.suppress(OSError):  # another's, or on a disk that is only read
            os.utime(path)  # its time is when it was used last
        return found
    encoded = encode()
    with contextlib.suppress(OSError, UserError):  # a cache that cannot be written costs time, nothing else
        _write(path, key, encoded)
        _prune(path.parent)
    return _read(path, key, labels) or encoded


def _prune(folder: Path) -> None:
    """Remove the files that were not used for longest until the others take `MOST_BYTES` at most.

    A process that has mapped one of them keeps it.
    """
    files = sorted(
        ((status.st_mtime_ns, status.st_size, path) for path in folder.iterdir() if (status := _status(path))),
        reverse=True,
    )
    kept = 0
    for _, size, path in files:
        kept += size
        if kept > MOST_BYTES:
            path.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another process prunes too
        return None


def _key(checksum: str, tokenizer: Any, max_length: int) -> str | None:
    """Return 32 hexadecimal digits of all that decides which tokens come out; None where that cannot be told."""
    folder = Path(str(getattr(tokenizer, "name_or_path", "")))
    names = sorted({*getattr(tokenizer, "vocab_files_names", {}).values(), *_TOKENIZER_FILES})
    files = [(name, file_digest(folder / name)) for name in names if (folder / name).is_file()]
    if not files:
        return None
    versions = [__version__, version("transformers"), version("tokenizers")]
    # a template around the texts gives other tokens
    template = [str(piece) for piece in getattr(tokenizer, "pieces", ())]
    text = json.dumps([_FORMAT, checksum, type(tokenizer).__name__, files, max_length, versions, *template])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write(path: Path, key: str, encoded: EncodedTexts) -> None:
    from safetensors.numpy import save

    arrays = {**encoded.columns, _OFFSETS: encoded.offsets}
    metadata = {
        "key": key,
        "sha256": _digest(arrays),
        "padding": json.dumps(dict(encoded.padding)),
        "truncated": str(encoded.truncated),
        "unknown": repr(encoded.unknown),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, binary=True) as file:
        file.write(save(arrays, metadata))


def _read(path: Path, key: str, labels: torch.Tensor | None) -> EncodedTexts | None:
    """Map a file into memory; None where there is none, or it is damaged or of something else."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 2**20)))
        metadata = header.pop("__metadata__")
        arrays = {name: _map(path, 8 + size, entry) for name, entry in header.items()}
        if metadata["key"] != key or metadata["sha256"] != _digest(arrays):
            return None
        return EncodedTexts(
            offsets=arrays.pop(_OFFSETS),
            columns=arrays,
            labels=labels,
            padding=json.loads(metadata["padding"]),
            truncated=int(metadata["truncated"]),
            unknown=float(metadata["unknown"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _map(path: Path, start: int, entry: dict[str, Any]) -> np.ndarray:
    """Return an array as the header of a safetensors file describes it."""
    dtype = {"I32": np.int32, "I64": np.int64}[entry["dtype"]]
    (rows,) = entry["shape"]
    if not rows:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset=start + entry["data_offsets"][0], shape=(rows,)))


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {len(array)}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()

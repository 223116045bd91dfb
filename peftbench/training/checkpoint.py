"""Checkpoints between epochs: all that an interrupted run needs to end as an undisturbed one."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from peftbench.errors import UserError
from peftbench.files import atomic_write


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of the random generators that training on `device` draws from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the generators to what `random_state` returned, whichever of a machine's GPUs `device` is now."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class _HashingFile:
    """Writes to a file and takes the SHA-256 of what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain data) so that the file is the old one or the new, never half of it.

    The file ends with the SHA-256 of all before, which torch does not read.
    """
    with atomic_write(path, binary=True) as file:
        hashing: Any = _HashingFile(file)
        torch.save(dict(state), hashing)
        file.write(hashing.sha256.digest())


def _is_whole(path: Path) -> bool:
    """Tell whether a checkpoint is as it was written."""
    rest = path.stat().st_size - hashlib.sha256().digest_size
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while rest > 0 and (part := file.read(min(rest, 1 << 20))):
            sha256.update(part)
            rest -= len(part)
        return file.read() == sha256.digest()


def load_checkpoint(path: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """Read a checkpoint whose trained tensors must have these names and shapes.

    Raises UserError for a file that is not as it was written and for one of another model.
    """
    remedy = "delete it, or start over with force=true"
    try:
        if not _is_whole(path):
            raise ValueError("it is not what was written")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: tensor.shape for name, tensor in state["trained"].items()}
    except Exception as error:  # a damaged file fails in many ways: zip, pickle, missing keys
        raise UserError(f"the checkpoint {path} is cut short or damaged: {remedy}") from error
    if found != dict(shapes):
        other = sorted(set(found) ^ set(shapes)) or [n for n in found if found[n] != shapes[n]]
        raise UserError(f"the checkpoint {path} is of another model (it differs in {other[0]}): {remedy}")
    return state

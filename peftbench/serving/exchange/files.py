"""Reading a folder that may be anybody's: JSON objects and safetensors, with one clear line for what is wrong."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from peftbench.errors import UserError
from peftbench.files import check_regular, parse_json
from peftbench.runs.digests import sha256
from peftbench.serving.exchange.tie import Tensors


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; UserError where it cannot be read or holds none."""
    try:
        check_regular(path)
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object")
    return found


def read_weights(path: Path, pickled: str, remedy: str) -> Tensors:
    """Return the tensors of a safetensors file.

    Args:
        path: of the file. pickled: name of the file that may lie there instead, which is never unpickled.
        remedy: how to save one that can be read.

    Raises UserError where there is none, where it is cut short or holds what is no finite number.
    """
    if not path.exists():
        if path.with_name(pickled).exists():
            raise UserError(
                f"{path.with_name(pickled)} is a pickle, which could run anything and is not read: {remedy}"
            )
        raise UserError(f"{path.parent} has no {path.name}")
    try:
        check_regular(path)
        tensors = load_file(path)
    except Exception as error:  # safetensors raises its own kind for a file cut short
        raise UserError(f"{path} is cut short or damaged: {_reason(error)}") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path}: {name} holds what is no finite floating-point number")
    return tensors


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's settings and weights, whatever the folder is called."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]

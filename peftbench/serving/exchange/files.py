"""Reading a folder that may be anybody's: JSON objects and tensors, with one clear line for what is wrong."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from peftbench.errors import UserError, first_line
from peftbench.files import check_regular, parse_json
from peftbench.runs.digests import sha256
from peftbench.serving.exchange.tie import Tensors

_NUMBERS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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


def read_weights(path: Path, pickled: str) -> Tensors:
    """Return the tensors of a safetensors file, or of the pickle of this name where there is none.

    Of a pickle tensors alone are read, whatever else is in it is not run. Raises UserError where there is neither,
    where the file is cut short, holds more than tensors or what is no finite number.
    """
    if not path.exists() and path.with_name(pickled).exists():
        path = path.with_name(pickled)
    try:
        check_regular(path)
        tensors = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} has no {path.name}") from error
    except pickle.UnpicklingError as error:  # torch's own line advises to run what is in the file
        raise UserError(
            f"{path} is damaged or holds more than tensors, which is never run: save it as safetensors"
        ) from error
    except Exception as error:  # safetensors and torch raise many kinds for a file cut short
        raise UserError(f"{path} is cut short or damaged: {_reason(error)}") from error
    for name, tensor in tensors.items():
        if not _is_plain(tensor):
            raise UserError(f"{path}: {name} is no plain tensor (sparse, nested, on no device, or without its data)")
        if tensor.dtype not in _NUMBERS or not bool(torch.isfinite(tensor).all()):
            kinds = ", ".join(str(kind).removeprefix("torch.") for kind in _NUMBERS)
            raise UserError(f"{path}: {name} holds what is no finite floating-point number ({kinds})")
    return tensors


def _is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor has all of its elements in memory; a pickle may say one number is billions of them."""
    if tensor.is_nested or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _unpickled(path: Path) -> Tensors:
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ValueError("it holds no named tensors")
    return {str(name): tensor for name, tensor in found.items()}


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's settings and weights, whatever the folder is called."""
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("json", "safetensors", "bin") for path in folder.glob(f"*.{kind}")):
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)

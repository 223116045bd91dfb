"""A method and its head in another library's folder: what is written to it and read from it, whichever library."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from peftbench.errors import UserError
from peftbench.files import write_json
from peftbench.serving.exchange.files import read_settings
from peftbench.serving.exchange.tie import Tensors

PROVENANCE = "peftbench.json"


@dataclass(frozen=True)
class Foreign:
    """What such a folder holds.

    Attributes:
        library: peft or adapters. method: its name here. settings: of the method, theirs.
        name: of the adapter. tensors: all there are, the head's among them, by their keys.
        digest: of the folder's settings and weights.
        base: what it calls its base model. model_type: transformers' name of its architecture. None where it does not
            say. labels: class names, in the head's order.
        weights: digest of the base model where peftbench wrote the folder.
    """

    library: str
    method: str
    settings: dict[str, Any]
    name: str
    tensors: Tensors
    digest: str
    base: str | None = None
    model_type: str | None = None
    labels: list[str] = field(default_factory=list)
    weights: str | None = None


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write a safetensors file that others may read as they may its neighbours."""
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path, {"format": "pt"})
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes it its owner's alone


def write_provenance(folder: Path, run: str, model: dict[str, Any], weights: str | None, labels: list[str]) -> None:
    """Say of which run, base model and classes the folder is: their formats have no place for it."""
    base = {"name": model["name"], "id": model.get("id"), "revision": model.get("revision"), "weights": weights}
    write_json(folder / PROVENANCE, {"run": run, "base": base, "labels": labels})


def read_provenance(folder: Path) -> tuple[str | None, list[str]]:
    """Return the digest of the base model and the class names, None and none where peftbench did not write it."""
    path = folder / PROVENANCE
    if not path.exists():
        return None, []
    found = read_settings(path)
    base, labels = found.get("base"), found.get("labels")
    if not isinstance(base, dict) or not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
        raise UserError(f"{path} is not as peftbench wrote it: remove it to read the folder without it")
    weights = base.get("weights")
    return (weights if isinstance(weights, str) else None), labels

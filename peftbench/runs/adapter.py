"""The `adapter/` folder of a run: the trained tensors, and a JSON that says how to attach them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from peftbench import __version__
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.sites import Sites
from peftbench.config.fill import fill
from peftbench.errors import UserError
from peftbench.files import atomic_write, check_regular, make_folder, parse_json, write_json
from peftbench.methods import Method, build, method_class
from peftbench.runs.result import read_as

_TENSORS, _DESCRIPTION = "adapter.safetensors", "adapter.json"


@dataclass(frozen=True)
class Description:
    """What adapter.json says; `model` and `task` are the run's config groups."""

    method: dict[str, Any]
    model: dict[str, Any]
    task: dict[str, Any]
    labels: list[str]
    peftbench: str = __version__


def save_adapter(
    folder: Path, method: Method, backbone: HeadedBackbone, model: dict, task: dict, labels: list[str]
) -> None:
    """Write the method's tensors (in the form inference needs) and the head's."""
    config, tensors = method.exported()
    description = Description({"name": method.name, **asdict(config)}, model, task, labels)
    kept = {f"method.{name}": tensor for name, tensor in tensors.items()}
    kept |= {f"head.{name}": parameter.detach() for name, parameter in backbone.head.items()}
    kept |= {f"head.{name}": buffer for name, buffer in backbone.statistics.items()}
    make_folder(folder)
    with atomic_write(folder / _TENSORS, binary=True) as file:
        file.write(save({name: tensor.cpu().contiguous() for name, tensor in kept.items()}))
    write_json(folder / _DESCRIPTION, asdict(description))


def read_description(folder: Path) -> Description:
    """Read adapter.json. Raises UserError where it is missing or damaged."""
    path = folder / _DESCRIPTION
    try:
        check_regular(path)
        description: Description = read_as(Description, parse_json(path.read_bytes()), _DESCRIPTION)
        if not isinstance(description.method.get("name"), str):
            raise ValueError("the method has no name")
        return description
    except FileNotFoundError as error:
        raise UserError(f"no trained adapter in {folder}: the run has not finished; train it first") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: train the run again with force=true") from error


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Read the trained tensors, `method.…` and `head.…`; UserError where the file is cut short or damaged."""
    path = folder / _TENSORS
    try:
        # no map of the file: what is written over it would change the answers of a server
        tensors: dict[str, torch.Tensor] = load(path.read_bytes())
        return tensors
    except Exception as error:  # safetensors raises its own kind for a file cut short
        raise UserError(f"{path} is cut short or damaged: train the run again with force=true") from error


def load_adapter(folder: Path, backbone: HeadedBackbone) -> Method:
    """Build the stored method on a backbone, fill its tensors and the head's, and attach it.

    Raises UserError where the file is cut short or of another model.
    """
    description = read_description(folder)
    method = build_described(description, backbone.sites)
    targets = {f"method.{name}": tensor for name, tensor in method.state_dict().items()}
    targets |= {f"head.{name}": parameter.data for name, parameter in backbone.head.items()}
    targets |= {f"head.{name}": buffer for name, buffer in backbone.statistics.items()}
    tensors = read_tensors(folder)
    check_shapes(folder, tensors, {name: target.shape for name, target in targets.items()})
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])
    method.requires_grad_(False)
    method.to(backbone.sites.device)
    method.eval()
    method.attach(backbone.sites)
    return method


def build_described(description: Description, sites: Sites) -> Method:
    """Build the method that adapter.json describes, with fresh tensors."""
    settings = dict(description.method)
    return build(fill(method_class(settings.pop("name")).config_class, settings, "method"), sites)


def check_shapes(folder: Path, tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raise UserError where the tensors read from a folder are not those that a method and a head have."""
    wrong = sorted(set(shapes) ^ set(tensors)) or [n for n in shapes if shapes[n] != tensors[n].shape]
    if wrong:
        raise UserError(f"{folder / _TENSORS} is of another model: it differs in {wrong[0].partition('.')[2]}")

"""From another library's folder to a method on a backbone, with its head filled."""

from pathlib import Path

import torch

from peftbench.backbones.heads import HeadedBackbone
from peftbench.errors import UserError
from peftbench.files import is_there
from peftbench.methods import Method, build, method_class
from peftbench.serving.exchange import adapterhub_folder, peft_folder
from peftbench.serving.exchange.files import read_settings
from peftbench.serving.exchange.folder import Foreign
from peftbench.serving.exchange.tie import from_foreign

_CONVERTERS = {"peft": peft_folder.CONVERTERS, "adapters": adapterhub_folder.CONVERTERS}


def read_folder(folder: Path) -> Foreign:
    """Read a folder of Hugging Face peft or AdapterHub; UserError where it is neither, or something is wrong in it."""
    if not is_there(folder, Path.is_dir):
        raise UserError(f"there is no folder {folder}")
    if not is_there(folder / peft_folder.CONFIG):
        is_model = is_there(folder / "config.json")
        hint = ": an ordinary model is used as model=local model.path=FOLDER" if is_model else ""
        raise UserError(f"{folder} has no {peft_folder.CONFIG}, as Hugging Face peft and AdapterHub write it{hint}")
    settings = read_settings(folder / peft_folder.CONFIG)
    library = peft_folder if "peft_type" in settings else adapterhub_folder
    return library.read(folder)


@torch.no_grad()
def read_method(foreign: Foreign, backbone: HeadedBackbone) -> Method:
    """Build the method that a folder holds, fill its tensors and the backbone's head; it is not attached.

    Raises UserError, naming it, for a setting or tensor that has no place here, for a missing head and for another
    base model.
    """
    converter = _CONVERTERS[foreign.library][foreign.method]
    keys = {name: name for name in backbone.head}
    if foreign.library == "peft":
        keys = peft_folder.head_keys(foreign.settings, backbone)
    _check_head(foreign, backbone, keys)
    tensors = {key: tensor for key, tensor in foreign.tensors.items() if key not in set(keys.values())}
    config = converter.config(foreign.settings, tensors, backbone.sites)
    held, needed = sum(map(torch.numel, tensors.values())), method_class(foreign.method).count(config, backbone.sites)
    if needed > 10 * held:  # before they are allocated
        raise UserError(f"its settings make it {needed:,} parameters, and the weights hold {held:,} numbers")
    method = build(config, backbone.sites)
    from_foreign(converter.ties(config, backbone.sites, foreign.name), tensors, method.state_dict())
    for name, parameter in backbone.head.items():
        parameter.copy_(foreign.tensors[keys[name]])
    method.requires_grad_(False)
    method.to(backbone.sites.device)
    return method.eval()


def _check_head(foreign: Foreign, backbone: HeadedBackbone, keys: dict[str, str]) -> None:
    for name, parameter in backbone.head.items():
        if keys[name] not in foreign.tensors:
            raise UserError(
                f"the weights lack the head's {keys[name]}: save the classifier along with the adapter, it cannot be"
                " guessed"
            )
        found, wanted = (tuple(tensor.shape) for tensor in (foreign.tensors[keys[name]], parameter))
        if found != wanted:
            sizes = [" × ".join(map(str, shape)) for shape in (found, wanted)]
            raise UserError(
                f"the head's {keys[name]} is {sizes[0]} where task and model make it {sizes[1]}: choose the task and"
                " the model that it was trained for"
            )

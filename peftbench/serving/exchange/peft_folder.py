"""The folder that Hugging Face peft's `save_pretrained` writes of an adapter and a classifier."""

from pathlib import Path
from typing import Any

from peftbench.backbones.heads import HeadedBackbone
from peftbench.errors import UserError
from peftbench.files import write_json
from peftbench.methods import Method
from peftbench.serving.exchange import peft_ia3, peft_lora, peft_prefix
from peftbench.serving.exchange.converter import Converter, Settings
from peftbench.serving.exchange.files import folder_digest, read_settings, read_weights
from peftbench.serving.exchange.folder import Foreign, read_provenance, write_tensors
from peftbench.serving.exchange.tie import to_foreign

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
NAME = "default"  # not in the file: peft leaves an adapter's name out
CONVERTERS: dict[str, Converter] = {
    "lora": peft_lora.LORA,
    "ia3": peft_ia3.IA3,
    "prefix": peft_prefix.PREFIX_TUNING,
}
_METHODS = {"LORA": "lora", "IA3": "ia3", "PREFIX_TUNING": "prefix"}


def settings_of(method: Method, backbone: HeadedBackbone) -> Settings:
    """Return the method's settings as peft calls them; UserError, naming one, for what it cannot express."""
    return CONVERTERS[method.name].settings(method.config, backbone.sites)


def write(folder: Path, method: Method, backbone: HeadedBackbone, base: str, revision: str | None) -> None:
    """Write config and weights; UserError as `settings_of`."""
    sites, settings = backbone.sites, settings_of(method, backbone)
    tensors = to_foreign(CONVERTERS[method.name].ties(method.config, sites, NAME), method.state_dict())
    tensors |= {f"{_prefix(settings)}{key}": tensor for key, tensor in backbone.head.items()}
    saved = {*settings.get("modules_to_save", ()), *_head_modules(backbone)}
    settings |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    write_json(folder / CONFIG, {**settings, "modules_to_save": sorted(saved)})
    write_tensors(folder / WEIGHTS, tensors)


def read(folder: Path) -> Foreign:
    """Read what `save_pretrained` wrote; UserError for what is missing, or damaged."""
    settings = read_settings(folder / CONFIG)
    kind = settings.get("peft_type")
    if not isinstance(kind, str) or kind not in _METHODS:
        raise UserError(f"peft_type={kind} cannot be imported, only {', '.join(_METHODS)}")
    weights, labels = read_provenance(folder)
    base = settings.get("base_model_name_or_path")
    return Foreign(
        library="peft",
        method=_METHODS[kind],
        settings=settings,
        name=NAME,
        tensors=read_weights(folder / WEIGHTS, PICKLED),
        digest=folder_digest(folder),
        base=base if isinstance(base, str) and base else None,
        labels=labels,
        weights=weights,
    )


def head_keys(settings: dict[str, Any], backbone: HeadedBackbone) -> dict[str, str]:
    """Return the key of each of the head's tensors."""
    return {name: f"{_prefix(settings)}{name}" for name in backbone.head}


def _prefix(settings: dict[str, Any]) -> str:
    return peft_prefix.PREFIX if settings["peft_type"] == "PREFIX_TUNING" else peft_lora.PREFIX


def _head_modules(backbone: HeadedBackbone) -> set[str]:
    """Return the modules that hold the head: whole children of the model, and fresh ones of the encoder."""
    inside = f"{backbone.model.base_model_prefix}."
    return {name.rpartition(".")[0] if name.startswith(inside) else name.partition(".")[0] for name in backbone.head}

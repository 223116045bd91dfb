"""The folder that AdapterHub's `adapters` writes of an adapter and the head of an ordinary transformers class.

Layer norms that a run trained, and what its base model lacked (a fresh pooler), go along with the head: the library
loads what is in that file over the model's own.
"""

import re
from pathlib import Path
from typing import Any

from peftbench.backbones.heads import HeadedBackbone
from peftbench.errors import UserError
from peftbench.files import write_json
from peftbench.methods import Method
from peftbench.serving.exchange import adapterhub_bottleneck, adapterhub_lora, adapterhub_mam, adapterhub_prompts
from peftbench.serving.exchange.adapterhub_places import check_known
from peftbench.serving.exchange.adapterhub_prompts import without_shares
from peftbench.serving.exchange.converter import Converter, Settings
from peftbench.serving.exchange.files import folder_digest, read_settings, read_weights
from peftbench.serving.exchange.folder import Foreign, read_provenance, write_tensors
from peftbench.serving.exchange.tie import to_foreign

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter.safetensors", "pytorch_adapter.bin"
HEAD_CONFIG, HEAD_WEIGHTS, HEAD_PICKLED = "head_config.json", "model_head.safetensors", "pytorch_model_head.bin"
CONVERTERS: dict[str, Converter] = {
    "adapter": adapterhub_bottleneck.ADAPTER,
    "pfeiffer": adapterhub_bottleneck.PFEIFFER,
    "parallel": adapterhub_bottleneck.PARALLEL,
    "compacter": adapterhub_bottleneck.COMPACTER,
    "lora": adapterhub_lora.LORA,
    "ia3": adapterhub_lora.IA3,
    "prefix": adapterhub_prompts.PREFIX_TUNING,
    "prompt": adapterhub_prompts.PROMPT_TUNING,
    "mam": adapterhub_mam.MAM,
}
_WRITTEN_FOR = "adapters.1.3.0"


def settings_of(method: Method, backbone: HeadedBackbone) -> Settings:
    """Return the method's settings as the library calls them; UserError, naming one, for what it cannot express."""
    check_known(backbone.sites)
    return CONVERTERS[method.name].settings(method.config, backbone.sites)


def write(folder: Path, method: Method, backbone: HeadedBackbone, name: str, labels: list[str]) -> None:
    """Write configs and weights; UserError as `settings_of`."""
    sites, model = backbone.sites, backbone.model
    settings = settings_of(method, backbone)
    ties = CONVERTERS[method.name].ties(method.config, sites, name)
    norms = [tie for tie in ties if _is_norm(tie.state_key)]
    state = method.state_dict()
    common = {
        "hidden_size": sites.hidden,
        "model_class": type(model).__name__,
        "model_name": "",
        "model_type": sites.base.config.model_type,
        "version": _WRITTEN_FOR,
    }
    write_json(folder / CONFIG, {"config": settings, "name": name, **common})
    write_tensors(folder / WEIGHTS, to_foreign((tie for tie in ties if tie not in norms), state))
    numbers = {label: number for number, label in enumerate(labels or ["LABEL_0"])}
    head = {"config": None, "name": None, "label2id": numbers, "num_labels": len(numbers), **common}
    write_json(folder / HEAD_CONFIG, head)
    write_tensors(folder / HEAD_WEIGHTS, {**backbone.head, **to_foreign(norms, state)})


def _is_norm(state_key: str | None) -> bool:
    return state_key is not None and state_key.startswith(adapterhub_bottleneck.NORMS)


def read(folder: Path) -> Foreign:
    """Read what `save_adapter` wrote, with its head; UserError for what is missing, or damaged."""
    described = read_settings(folder / CONFIG)
    settings, name = described.get("config"), described.get("name")
    if not isinstance(settings, dict) or not isinstance(name, str):
        raise UserError(f"{folder / CONFIG} names no adapter with its config")
    version = re.match(r"adapters\.(\d+)\.(\d+)", str(described.get("version")))
    if version and (int(version[1]), int(version[2])) < (1, 1) and settings.get("architecture") == "lora":
        raise UserError(
            f"{folder} was saved by {version[0]}, whose LoRA had another scale than its settings say: save it again"
            " with adapters 1.1 or newer"
        )
    tensors = without_shares(read_weights(folder / WEIGHTS, PICKLED))
    head: dict[str, Any] = {}
    if (folder / HEAD_CONFIG).exists() or (folder / HEAD_WEIGHTS).exists() or (folder / HEAD_PICKLED).exists():
        tensors |= read_weights(folder / HEAD_WEIGHTS, HEAD_PICKLED)
        head = read_settings(folder / HEAD_CONFIG) if (folder / HEAD_CONFIG).exists() else {}
    if head.get("config"):
        raise UserError(
            f"{folder / HEAD_CONFIG} describes a head of AdapterHub's own (AutoAdapterModel): what can be imported is"
            " the head of an ordinary transformers class, of a model made ready by adapters.init"
        )
    weights, labels = read_provenance(folder)
    return Foreign(
        library="adapters",
        method=_method(settings),
        settings=settings,
        name=name,
        tensors=tensors,
        digest=folder_digest(folder),
        base=_text(described.get("model_name")),
        model_type=_text(described.get("model_type")),
        labels=labels or _labels(head),
        weights=weights,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _method(settings: dict[str, Any]) -> str:
    kind = settings.get("architecture")
    if kind in (None, "bottleneck"):
        return _bottleneck(settings)
    known = {"lora": "lora", "prefix_tuning": "prefix", "prompt_tuning": "prompt", "union": "mam"}
    if not isinstance(kind, str) or kind not in known:
        raise UserError(f"architecture={kind} cannot be imported, only bottleneck, {', '.join(known)}")
    return "ia3" if settings.get("composition_mode") == "scale" else known[kind]


def _bottleneck(settings: dict[str, Any]) -> str:
    if settings.get("is_parallel"):
        return "parallel"
    if settings.get("original_ln_before"):
        return "pfeiffer"
    return "compacter" if settings.get("phm_layer") else "adapter"


def _labels(head: dict[str, Any]) -> list[str]:
    """Return the class names in the head's order, none where they are numbers or transformers' own."""
    numbers = head.get("label2id")
    if not isinstance(numbers, dict) or not all(isinstance(number, int) for number in numbers.values()):
        return []
    labels = sorted(map(str, numbers), key=lambda label: numbers[label])
    return [] if all(re.fullmatch(r"LABEL_\d+|\d+", label) for label in labels) else labels

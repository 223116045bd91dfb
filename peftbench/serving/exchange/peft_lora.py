"""LoRA, rsLoRA and DoRA as Hugging Face peft saves them.

Where query, key and value are one map, peft has one A and one B for all of it: our pairs stand in them block by block.
"""

import math
import re
from functools import partial
from typing import Any

import torch

from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.lora import LoraConfig
from peftbench.methods.targets import short_name
from peftbench.serving.exchange.converter import Converter, Settings, check_settings, required, task_type, whole_number
from peftbench.serving.exchange.linear_maps import (
    Place,
    in_every_layer,
    maps_by_module,
    shortest_endings,
    sites_of_modules,
)
from peftbench.serving.exchange.tie import Tensors, Tie

PREFIX = "base_model.model."
_A = re.compile(re.escape(PREFIX) + r"(.+)\.lora_A\.weight")
_MATRIX = re.compile(r".+\.lora_[AB]\.weight")
_READ = (
    *("peft_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"),
    # which maps they are is seen from the weights, of which these say the same
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("fan_in_fan_out", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
)
_FIXED = {
    "task_type": ("SEQ_CLS", None),
    "bias": ("none",),
    # the others change the base model's weights
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}


def _settings(config: LoraConfig, sites: Sites) -> Settings:
    modules = maps_by_module(config.sites, sites)
    ranks = {module: config.rank * len(places) for module, places in modules.items()}
    rank = min(ranks.values())
    alphas = {module: _alpha(config, places) for module, places in modules.items()}
    alpha = alphas[min(ranks, key=lambda module: ranks[module])]
    return {
        "peft_type": "LORA",
        "task_type": task_type(sites),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "target_modules": shortest_endings(modules, sites),
        "use_rslora": config.rslora,
        "use_dora": config.dora,
        "bias": "none",
        "fan_in_fan_out": any(place.site.transposed for places in modules.values() for place in places),
        "rank_pattern": {module: other for module, other in ranks.items() if other != rank},
        "alpha_pattern": {module: other for module, other in alphas.items() if other != alpha},
    }


def _alpha(config: LoraConfig, places: list[Place]) -> float | int:
    """Return the alpha that scales the update of a module as ours scale those of its maps."""
    count = len(places)
    return whole_number(config.alpha * (math.sqrt(count) if config.rslora else count))


def _ties(config: LoraConfig, sites: Sites, name: str) -> list[Tie]:
    ties = []
    for module, places in maps_by_module(config.sites, sites).items():
        whole, rank = Site(places[0].site.module), config.rank * len(places)
        for number, place in enumerate(places):
            state_prefix, peft_prefix = f"updates.{short_name(place.name)}.{place.layer}", f"{PREFIX}{module}.lora_"
            block, rows = slice(number * config.rank, (number + 1) * config.rank), place.site.part or slice(None)
            blank_a = partial(torch.zeros, rank, whole.in_features)
            blank_b = partial(torch.zeros, whole.out_features, rank)
            ties.append(Tie(f"{peft_prefix}A.weight", f"{state_prefix}.a", region=(block, slice(None)), blank=blank_a))
            ties.append(Tie(f"{peft_prefix}B.weight", f"{state_prefix}.b", region=(rows, block), blank=blank_b))
            if config.dora:  # rows without an update keep their own length
                blank_m = partial(torch.linalg.vector_norm, whole.weight, dim=1)
                magnitude = f"{peft_prefix}magnitude_vector"
                ties.append(Tie(magnitude, f"{state_prefix}.magnitude", region=(rows,), blank=blank_m))
    return ties


def _config(settings: Settings, tensors: Tensors, sites: Sites) -> LoraConfig:
    check_settings(settings, _READ, _FIXED)
    rslora, dora = (bool(settings.get(key)) for key in ("use_rslora", "use_dora"))
    acted_on = [match[1] for key in tensors if (match := _A.fullmatch(key))]
    if not acted_on:
        raise UserError("its weights hold no lora_A")
    for key, tensor in tensors.items():
        if _MATRIX.fullmatch(key) and tensor.dim() != 2:
            raise UserError(f"{key} is no matrix, it has {tensor.dim()} dimensions: the file is damaged")
    for module in acted_on:
        _check_agrees(settings, module, tensors[f"{PREFIX}{module}.lora_A.weight"].shape[0])
    modules = {
        module: _with_update(places, tensors.get(f"{PREFIX}{module}.lora_B.weight"))
        for module, places in sites_of_modules(acted_on, sites).items()
    }
    ranks = {module: tensors[f"{PREFIX}{module}.lora_A.weight"].shape[0] for module in modules}
    ranks_per_map = {rank / len(modules[module]) for module, rank in ranks.items()}
    alphas = {_alpha_per_map(settings, module, len(places), rslora) for module, places in modules.items()}
    if len(ranks_per_map) > 1 or len(alphas) > 1:
        raise UserError("rank_pattern or alpha_pattern give its maps different ranks or scales: here all have one")
    (rank,), (alpha,) = ranks_per_map, alphas
    if rank != int(rank):
        raise UserError("one pair A and B serves query, key and value together: here each has its own")
    return LoraConfig(
        rank=int(rank),
        alpha=alpha,
        dropout=0.0 if dora else float(required(settings, "lora_dropout", (int, float), 0.0)),
        targets=[short_name(name) for name in in_every_layer((p for ps in modules.values() for p in ps), sites)],
        rslora=rslora,
        dora=dora,
    )


def _check_agrees(settings: Settings, module: str, rank: int) -> None:
    """Raise UserError where the settings say otherwise than the weights of a map: peft makes the model they say."""
    configured_rank = _of_module(settings, "rank_pattern", module, required(settings, "r", (int, float)))
    if configured_rank != rank:
        raise UserError(f"r or rank_pattern say a rank of {configured_rank} for {module}, and its weights have {rank}")
    if not _is_named(settings, "target_modules", module, True) or _is_named(settings, "exclude_modules", module, False):
        raise UserError(f"target_modules and exclude_modules leave out {module}, which its weights change")
    layers: Any = required(settings, "layers_to_transform", (int, list), [])
    number = re.match(r".*\.[^.]*\.(\d+)\.", module)
    if layers != [] and number and int(number[1]) not in (layers if isinstance(layers, list) else [layers]):
        raise UserError(f"layers_to_transform leaves out the layer of {module}, which its weights change")


def _is_named(settings: Settings, key: str, module: str, otherwise: bool) -> bool:
    """Tell whether a setting names a map: by a pattern for all of its name, or in a list of endings.

    `otherwise`: what holds where it names nothing in particular.
    """
    names: Any = required(settings, key, (str, list), [])
    if names in ([], "", "all-linear"):
        return otherwise
    if isinstance(names, list):
        return any(module == name or module.endswith(f".{name}") for name in names)
    try:
        return re.fullmatch(names, module) is not None
    except re.error as error:
        raise UserError(f"{key}={names} is no pattern for names: {error}") from error


def _with_update(places: list[Place], b: torch.Tensor | None) -> list[Place]:
    """Return those of a module's maps that its B changes; all where it changes none."""
    if len(places) == 1 or b is None:
        return places
    return [place for place in places if place.site.part and b[place.site.part].any()] or places


def _alpha_per_map(settings: Settings, module: str, count: int, rslora: bool) -> float:
    alpha = _of_module(settings, "alpha_pattern", module, required(settings, "lora_alpha", (int, float)))
    return float(alpha) / (math.sqrt(count) if rslora else count)


def _of_module(settings: Settings, key: str, module: str, usual: float) -> float:
    """Return the number that a setting of patterns has for a map, `usual` where none names it."""
    patterns = required(settings, key, dict, {})
    for pattern in patterns:
        if not re.fullmatch(r"[\w.]+", pattern):
            raise UserError(f"{key}: {pattern} is a regular expression, only names of maps are followed")
        if module == pattern or module.endswith(f".{pattern}"):
            number: float = required(patterns, pattern, (int, float))
            return number
    return usual


LORA = Converter(_settings, _ties, _config)

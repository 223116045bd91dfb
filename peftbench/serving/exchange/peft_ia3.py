"""IA³ as Hugging Face peft saves it: factors on a map's output as a column, on its input as a row."""

import re
from functools import partial

import torch

from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.ia3 import SCALED_INPUTS, Ia3Config
from peftbench.methods.targets import short_name, target_sites
from peftbench.serving.exchange.converter import Converter, Settings, check_settings, task_type
from peftbench.serving.exchange.linear_maps import in_every_layer, maps_by_module, shortest_endings, sites_of_modules
from peftbench.serving.exchange.peft_lora import PREFIX
from peftbench.serving.exchange.tie import Tensors, Tie

_FACTORS = re.compile(re.escape(PREFIX) + r"(.+)\.ia3_l")
_READ = (
    *("peft_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"),
    *("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"),
    *("fan_in_fan_out", "init_ia3_weights"),
)
_FIXED = {"task_type": ("SEQ_CLS", None)}


def _settings(config: Ia3Config, sites: Sites) -> Settings:
    names = target_sites(config.targets)
    modules = maps_by_module(names, sites)
    inputs = maps_by_module((name for name in names if name in SCALED_INPUTS), sites)
    return {
        "peft_type": "IA3",
        "task_type": task_type(sites),
        "target_modules": shortest_endings(modules, sites),
        "feedforward_modules": shortest_endings(inputs, sites) if inputs else [],
        "fan_in_fan_out": any(place.site.transposed for places in modules.values() for place in places),
    }


def _ties(config: Ia3Config, sites: Sites, name: str) -> list[Tie]:
    ties = []
    for module, places in maps_by_module(target_sites(config.targets), sites).items():
        whole = Site(places[0].site.module)
        for place in places:
            state_key, peft_key = f"factors.{short_name(place.name)}.{place.layer}", f"{PREFIX}{module}.ia3_l"
            rows = place.site.part or slice(None)
            if place.name in SCALED_INPUTS:
                blank = partial(torch.ones, 1, whole.in_features)
                ties.append(
                    Tie(peft_key, state_key, region=(slice(0, 1), slice(None)), blank=blank, back=torch.flatten)
                )
            else:  # of the maps that share a module, those without factors have ones
                blank = partial(torch.ones, whole.out_features, 1)
                column = partial(torch.unsqueeze, dim=1)
                ties.append(
                    Tie(peft_key, state_key, forth=column, back=torch.flatten, region=(rows, slice(0, 1)), blank=blank)
                )
    return ties


def _config(settings: Settings, tensors: Tensors, sites: Sites) -> Ia3Config:
    check_settings(settings, _READ, _FIXED)
    acted_on = [match[1] for key in tensors if (match := _FACTORS.fullmatch(key))]
    if not acted_on:
        raise UserError("its weights hold no ia3_l")
    scaled = []
    for module, places in sites_of_modules(acted_on, sites).items():
        factors = tensors[f"{PREFIX}{module}.ia3_l"]
        for place in places:
            on_input = place.name in SCALED_INPUTS
            if factors.dim() != 2 or factors.shape[0 if on_input else 1] != 1:
                side = "input" if on_input else "output"
                raise UserError(f"feedforward_modules: the factors of {module} can only act on its {side} here")
            rows = place.site.part
            if rows is None or (factors[rows] != 1).any():
                scaled.append(place)
    return Ia3Config(targets=[short_name(name) for name in in_every_layer(scaled, sites)])


IA3 = Converter(_settings, _ties, _config)

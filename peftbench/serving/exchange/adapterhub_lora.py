"""LoRA and IA³ as AdapterHub saves them: there IA³ is a LoRA that scales instead of adding."""

import math
import re

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.targets import short_name, target_sites
from peftbench.serving.exchange.converter import Converter, Settings, check_settings, required, whole_number
from peftbench.serving.exchange.linear_maps import in_every_layer, maps_by_module, sites_of_modules
from peftbench.serving.exchange.tie import Tensors, Tie, reshaped

_ATTENTION = {"attention.query": "q", "attention.key": "k", "attention.value": "v"}
_OTHER_DORA = "AdapterHub's DoRA scales the map's bias too"
_MODULE = re.compile(r"(.+)\.loras\.[^.]+\.lora_B")
_READ = (
    *("architecture", "r", "alpha", "use_dora", "selfattn_lora", "intermediate_lora", "output_lora"),
    *("attn_matrices", "dropout", "dtype", "init_weights", "init_weights_seed", "composition_mode"),
)


def _settings(targets: list[str], **method_settings: object) -> Settings:
    if "attention.output" in targets:
        raise UserError(
            "method.targets: AdapterHub has no place behind the attention's output map; query, key, value, up and down"
            " can be exported"
        )
    attention = [letter for site, letter in _ATTENTION.items() if site in targets]
    return {
        "architecture": "lora",
        "selfattn_lora": bool(attention),
        "intermediate_lora": "ffn.up" in targets,
        "output_lora": "ffn.down" in targets,
        "leave_out": [],
        "attn_matrices": attention,
        "use_gating": False,
        **method_settings,
    }


def _lora_settings(config: LoraConfig, sites: Sites) -> Settings:
    if config.dora:
        raise UserError(f"method.dora=true: {_OTHER_DORA}; dora=false can be exported, and --to peft takes both")
    method_settings = {"r": config.rank, "alpha": _alpha(config), "dropout": config.dropout, "use_dora": False}
    return _settings(config.sites, **method_settings, composition_mode="add", init_weights="lora")


def _alpha(config: LoraConfig) -> float | int:
    """Return the alpha that, divided by the rank, is our scale to the last digit: the library has no other way."""
    alpha = config.scale * config.rank
    for candidate in (alpha, math.nextafter(alpha, 0), math.nextafter(alpha, math.inf)):
        if candidate / config.rank == config.scale:
            return whole_number(candidate)
    return alpha


def _lora_ties(config: LoraConfig, sites: Sites, name: str) -> list[Tie]:
    ties = []
    for module, (place,) in maps_by_module(config.sites, sites).items():
        state_prefix, adapterhub_prefix = f"updates.{short_name(place.name)}.{place.layer}", f"{module}.loras.{name}."
        ties += [
            Tie(f"{adapterhub_prefix}lora_A", f"{state_prefix}.a"),
            Tie(f"{adapterhub_prefix}lora_B", f"{state_prefix}.b"),
        ]
    return ties


def _ia3_settings(config: Ia3Config, sites: Sites) -> Settings:
    if "ffn.down" in (targets := target_sites(config.targets)):
        raise UserError(
            "method.targets: AdapterHub scales the feed-forward part's inner activations before the activation, not"
            " behind it; targets=[key,value,up] can be exported"
        )
    return _settings(targets, r=1, alpha=1, dropout=0.0, use_dora=False, composition_mode="scale", init_weights="ia3")


def _ia3_ties(config: Ia3Config, sites: Sites, name: str) -> list[Tie]:
    ties = []
    for module, (place,) in maps_by_module(target_sites(config.targets), sites).items():
        ours, rows = f"factors.{short_name(place.name)}.{place.layer}", place.site.out_features
        ties.append(reshaped(f"{module}.loras.{name}.lora_B", ours, (rows, 1), (rows,)))
    return ties


def _config(settings: Settings, tensors: Tensors, sites: Sites) -> LoraConfig | Ia3Config:
    check_settings(settings, _READ, {"composition_mode": ("add", "scale")})
    acted_on = [match[1] for key in tensors if (match := _MODULE.fullmatch(key))]
    if not acted_on:
        raise UserError("its weights hold no lora_B")
    modules = sites_of_modules(acted_on, sites)
    names = in_every_layer((place for places in modules.values() for place in places), sites)
    targets = [short_name(name) for name in names]
    rank, alpha = required(settings, "r", int), required(settings, "alpha", (int, float))
    if settings.get("composition_mode") == "scale":
        check_settings(settings, settings, {"r": (1,), "alpha": (1,), "use_dora": (False, None)})
        if wrong := {"output", "down"} & set(targets):
            raise UserError(f"it scales what leaves {wrong.pop()}, where here only what enters it can be scaled")
        return Ia3Config(targets=targets)
    if settings.get("use_dora"):
        raise UserError(f"use_dora=true: {_OTHER_DORA}, here it acts on the weight alone")
    dropout = float(required(settings, "dropout", (int, float), 0.0))
    return LoraConfig(rank=rank, alpha=float(alpha), dropout=dropout, targets=targets)


LORA = Converter(_lora_settings, _lora_ties, _config)
IA3 = Converter(_ia3_settings, _ia3_ties, _config)

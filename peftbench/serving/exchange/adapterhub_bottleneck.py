"""Bottleneck adapters as AdapterHub saves them: ours (`adapter`), Pfeiffer's, the parallel one, Compacter's.

There one kind of settings tells all of them. Layer norms that a method of ours trains have no place among them; they
go along with the head (see `adapterhub_folder`).
"""

import math
from typing import Any

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.adapter import POSITIONS, AdapterConfig
from peftbench.methods.bottleneck import ACTIVATIONS, BottleneckConfig, canonical_layers, layer_numbers
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.layer_norms import layer_norm_names
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.serving.exchange.adapterhub_places import base_name, bottleneck_key, left_out
from peftbench.serving.exchange.converter import Converter, Settings, check_settings, required
from peftbench.serving.exchange.tie import Tensors, Tie, reshaped

NORMS = "replaced."  # ours, of the tensors that stand in the place of the backbone's own
_READ = (
    *("mh_adapter", "output_adapter", "reduction_factor", "non_linearity", "leave_out", "scaling", "is_parallel"),
    *("original_ln_before", "phm_layer", "phm_dim", "phm_rank"),
)
_TRAINING = (
    *("dropout", "stochastic_depth", "init_weights", "init_weights_seed", "inv_adapter_reduction_factor"),
    *("hypercomplex_nonlinearity", "phm_c_init", "phm_init_range", "learn_phm"),
)
_FIXED: dict[str, tuple[Any, ...]] = {"original_ln_after": (True,), "residual_before_ln": (True,)}
_PHM_FIXED: dict[str, tuple[Any, ...]] = {
    "factorized_phm_W": (True,),
    "factorized_phm_rule": (False,),
    "shared_W_phm": (False,),
    "shared_phm_rule": (True,),
    "phm_bias": (True,),
}
_LINEAR = (
    ("down_weight", "adapter_down.0.weight"),
    ("down_bias", "adapter_down.0.bias"),
    ("up_weight", "adapter_up.weight"),
    ("up_bias", "adapter_up.bias"),
)
_PHM = (("left", "W_left"), ("right", "W_right"))
_WAYS = (("down", "adapter_down.0"), ("up", "adapter_up"))


def _common(config: BottleneckConfig, sites: Sites, **overrides: Any) -> Settings:
    """Return the settings of a bottleneck, those named in place of the usual ones."""
    return {
        "mh_adapter": False,
        "output_adapter": True,
        "reduction_factor": _factor(sites.hidden, config.size(sites.hidden)),
        "non_linearity": "relu",
        "original_ln_before": False,
        "original_ln_after": True,
        "ln_before": False,
        "ln_after": False,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "is_parallel": False,
        "scaling": 1.0,
        "use_gating": False,
        "cross_adapter": False,
        "inv_adapter": None,
        "inv_adapter_reduction_factor": None,
        "dropout": 0.0,
        "leave_out": left_out(layer_numbers(config, sites), sites),
        "init_weights": "bert",
        "phm_layer": False,
        "phm_dim": 4,
        "phm_rank": 1,
        "phm_bias": True,
        "factorized_phm_W": True,
        "factorized_phm_rule": False,
        "shared_W_phm": False,
        "shared_phm_rule": True,
        "learn_phm": True,
        **overrides,
    }


def _factor(hidden: int, size: int) -> float | int:
    """Return the reduction factor by which the library comes to this bottleneck."""
    if hidden % size == 0:
        return hidden // size
    factor = hidden / size
    while int(hidden // factor) < size:
        factor = math.nextafter(factor, 0)
    return factor


def _where(position: str) -> Settings:
    sites = POSITIONS[position]
    if set(sites) - {"attention.residual", "ffn.residual"}:
        raise UserError(
            f"method.position={position}: AdapterHub's adapters stand behind attention and feed-forward part alone;"
            " position=attention, ffn and both can be exported"
        )
    return {"mh_adapter": "attention.residual" in sites, "output_adapter": "ffn.residual" in sites}


def _position(settings: Settings) -> str:
    where = (settings.get("mh_adapter"), settings.get("output_adapter"))
    names: dict[Any, str] = {(True, False): "attention", (False, True): "ffn", (True, True): "both"}
    if not all(isinstance(place, bool | None) for place in where):
        raise UserError("mh_adapter and output_adapter say true or false, and one of them is neither")
    if where not in names:
        raise UserError("mh_adapter and output_adapter are both false: it is nowhere")
    return names[where]


# to AdapterHub: settings and ties -----------------------------------------------------------------------


def _adapter_settings(config: AdapterConfig, sites: Sites) -> Settings:
    return _common(config, sites, non_linearity=config.activation, **_where(config.position))


def _adapter_ties(config: AdapterConfig, sites: Sites, name: str) -> list[Tie]:
    ties = []
    for site in POSITIONS[config.position]:
        ties += _linear_ties(config, sites, name, site, f"bottlenecks.{site.replace('.', '_')}")
    return ties + _norm_ties(config, sites)


def _pfeiffer_settings(config: PfeifferConfig, sites: Sites) -> Settings:
    return _common(config, sites, original_ln_before=True)


def _behind_ffn_ties(config: BottleneckConfig, sites: Sites, name: str) -> list[Tie]:
    return _linear_ties(config, sites, name, "ffn.residual", "bottlenecks")


def _parallel_settings(config: ParallelConfig, sites: Sites) -> Settings:
    scale = "learned" if config.learn_scale else config.scale
    return _common(config, sites, is_parallel=True, scaling=scale, init_weights="mam_adapter")


def _parallel_ties(config: ParallelConfig, sites: Sites, name: str) -> list[Tie]:
    numbers = layer_numbers(config, sites) if config.learn_scale else []
    scales = [
        reshaped(f"{bottleneck_key(sites, 'ffn.residual', layer, name)}scaling", f"scales.{index}", (1,), ())
        for index, layer in enumerate(numbers)
    ]
    return _behind_ffn_ties(config, sites, name) + scales


def _compacter_settings(config: CompacterConfig, sites: Sites) -> Settings:
    phm_settings = {"phm_layer": True, "phm_dim": config.phm_dim, "phm_rank": config.rank}
    return _common(config, sites, non_linearity=config.activation, **phm_settings, **_where(config.position))


def _compacter_ties(config: CompacterConfig, sites: Sites, name: str) -> list[Tie]:
    places = [(site, layer) for site in POSITIONS[config.position] for layer in layer_numbers(config, sites)]
    ties = [Tie(f"{base_name(sites)}.shared_parameters.{name}.phm_rule", "rule")]
    for index, (site, layer) in enumerate(places):
        key = bottleneck_key(sites, site, layer, name)
        for way, adapterhub_way in _WAYS:
            ties += [
                Tie(f"{key}{adapterhub_way}.{adapterhub_leaf}", f"{way}.{leaf}", index)
                for leaf, adapterhub_leaf in _PHM
            ]
            ties.append(Tie(f"{key}{adapterhub_way}.b", f"{way}.biases.{index}"))
    return ties + _norm_ties(config, sites)


def _linear_ties(config: BottleneckConfig, sites: Sites, name: str, site: str, state_prefix: str) -> list[Tie]:
    return [
        Tie(f"{bottleneck_key(sites, site, layer, name)}{adapterhub_leaf}", f"{state_prefix}.{index}.{leaf}")
        for index, layer in enumerate(layer_numbers(config, sites))
        for leaf, adapterhub_leaf in _LINEAR
    ]


def _norm_ties(config: AdapterConfig | CompacterConfig, sites: Sites) -> list[Tie]:
    names = layer_norm_names(sites, layer_numbers(config, sites)) if config.train_layer_norm else []
    return [Tie(f"{base_name(sites)}.{name}", f"{NORMS}{name.replace('.', '/')}") for name in names]


# from AdapterHub ----------------------------------------------------------------------------------------


def _config(settings: Settings, tensors: Tensors, sites: Sites) -> BottleneckConfig:
    fixed = {**_FIXED, **(_PHM_FIXED if settings.get("phm_layer") else {})}
    check_settings(settings, (*_READ, *_TRAINING, *_PHM_FIXED), fixed)
    factor = required(settings, "reduction_factor", (int, float))
    if factor <= 0:
        raise UserError(f"reduction_factor={factor} is no factor")
    numbers = _layers(settings, sites)
    shared: dict[str, Any] = {
        "bottleneck": max(int(sites.hidden // factor), 1),
        "layers": canonical_layers([str(number) for number in numbers], len(sites.layers)),
    }
    activation = str(settings.get("non_linearity")).lower()
    if settings.get("is_parallel"):
        check_settings(
            settings, settings, {**_behind_ffn("relu"), "original_ln_before": (False,), "phm_layer": (False,)}
        )
        if settings.get("scaling") == "learned":
            return ParallelConfig(**shared, scale=1.0, learn_scale=True)
        return ParallelConfig(**shared, scale=float(required(settings, "scaling", (int, float), 1.0)))
    check_settings(settings, settings, {"scaling": (1, 1.0)})
    if settings.get("original_ln_before"):
        check_settings(settings, settings, {**_behind_ffn("relu"), "phm_layer": (False,)})
        return PfeifferConfig(**shared)
    check_settings({"non_linearity": activation}, (), {"non_linearity": tuple(ACTIVATIONS)})
    shared |= {
        "position": _position(settings),
        "activation": activation,
        "train_layer_norm": _has_norms(numbers, tensors, sites),
    }
    if settings.get("phm_layer"):
        dim, rank = (required(settings, key, int) for key in ("phm_dim", "phm_rank"))
        if f"{base_name(sites)}.shared_parameters" not in " ".join(tensors):
            raise UserError(
                "its weights lack the shared phm_rule, which the library saves of a model with a head alone"
            )
        return CompacterConfig(**shared, phm_dim=dim, rank=rank)
    return AdapterConfig(**shared)


def _has_norms(layers: list[int], tensors: Tensors, sites: Sites) -> bool:
    return any(f"{base_name(sites)}.{name}" in tensors for name in layer_norm_names(sites, layers))


def _behind_ffn(activation: str) -> dict[str, tuple[Any, ...]]:
    return {"mh_adapter": (False,), "output_adapter": (True,), "non_linearity": (activation,)}


def _layers(settings: Settings, sites: Sites) -> list[int]:
    without = required(settings, "leave_out", list, [])
    numbers = [number for number in range(len(sites.layers)) if number not in without]
    if not numbers:
        raise UserError("leave_out leaves no layer")
    return numbers


ADAPTER = Converter(_adapter_settings, _adapter_ties, _config)
PFEIFFER = Converter(_pfeiffer_settings, _behind_ffn_ties, _config)
PARALLEL = Converter(_parallel_settings, _parallel_ties, _config)
COMPACTER = Converter(_compacter_settings, _compacter_ties, _config)

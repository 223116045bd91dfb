"""Mix-and-match adapters as AdapterHub saves them: a union of a prefix and a parallel adapter."""

from dataclasses import replace

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.mam import MamConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.serving.exchange.adapterhub_bottleneck import PARALLEL
from peftbench.serving.exchange.adapterhub_prompts import PREFIX_TUNING
from peftbench.serving.exchange.converter import Converter, Settings, check_settings
from peftbench.serving.exchange.tie import Tensors, Tie

_OTHER = "a union of other parts than a prefix and a parallel adapter cannot be imported"


def _settings(config: MamConfig, sites: Sites) -> Settings:
    parts = PREFIX_TUNING.settings(config.prefix, sites), PARALLEL.settings(config.parallel, sites)
    return {"architecture": "union", "configs": list(parts)}


def _ties(config: MamConfig, sites: Sites, name: str) -> list[Tie]:
    parts = {
        "prefix": PREFIX_TUNING.ties(config.prefix, sites, name),
        "parallel": PARALLEL.ties(config.parallel, sites, name),
    }
    return [replace(tie, state_key=f"{part}.{tie.state_key}") for part, ties in parts.items() for tie in ties]


def _config(settings: Settings, tensors: Tensors, sites: Sites) -> MamConfig:
    check_settings(settings, ("architecture", "configs"), {})
    parts = settings.get("configs")
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, dict) for part in parts):
        raise UserError(_OTHER)
    parts = sorted(parts, key=lambda part: part.get("architecture") != "prefix_tuning")
    if parts[0].get("architecture") != "prefix_tuning" or not parts[1].get("is_parallel"):
        raise UserError(_OTHER)
    prefix, parallel = PREFIX_TUNING.config(parts[0], tensors, sites), PARALLEL.config(parts[1], tensors, sites)
    assert isinstance(prefix, PrefixConfig) and isinstance(parallel, ParallelConfig)
    if parallel.learn_scale:
        raise UserError("scaling=learned: in a union the scale is a number here")
    return MamConfig(
        bottleneck=parallel.bottleneck,
        layers=parallel.layers,
        scale=parallel.scale,
        length=prefix.length,
        reparametrize=prefix.reparametrize,
        mid_dim=prefix.mid_dim,
    )


MAM = Converter(_settings, _ties, _config)

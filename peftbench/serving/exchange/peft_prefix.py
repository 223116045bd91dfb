"""Prefix tuning as Hugging Face peft saves it: past keys and values, behind which transformers counts positions on.

Our prefix leaves the text's positions at 0 … n-1. A table of positions moved on by the prefix's length goes along
among peft's `modules_to_save`, so that the text gets the vectors it was trained with.
"""

import inspect
from functools import partial

import torch
from torch import nn

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.prefix import PrefixConfig
from peftbench.serving.exchange.converter import Converter, Settings, check_settings, module_names, required
from peftbench.serving.exchange.tie import Tensors, Tie

PREFIX = "base_model."
_PROMPT = "prompt_embeddings"
_READ = (
    *("peft_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping"),
    *("num_virtual_tokens", "token_dim", "num_attention_heads", "num_layers", "modules_to_save"),
    *("encoder_hidden_size", "prefix_projection", "init_weights"),  # what is saved is the prefix itself
)
_FIXED = {"task_type": ("SEQ_CLS", None), "num_transformer_submodules": (1, None)}


def _settings(config: PrefixConfig, sites: Sites) -> Settings:
    base = type(sites.base)
    if "past_key_values" not in inspect.signature(base.forward).parameters:
        raise UserError(f"method=prefix: {base.__name__} takes no past keys, which is how peft puts a prefix in")
    return {
        "peft_type": "PREFIX_TUNING",
        "task_type": "SEQ_CLS",
        "num_virtual_tokens": config.length,
        "token_dim": sites.key_width,
        "num_attention_heads": sites.base.config.num_attention_heads,
        "num_layers": len(sites.layers),
        "num_transformer_submodules": 1,
        "encoder_hidden_size": sites.key_width,
        "prefix_projection": False,
        "modules_to_save": [module_names(sites)[_position_table(sites)]],
    }


def _ties(config: PrefixConfig, sites: Sites, name: str) -> list[Tie]:
    layers, width = len(sites.layers), sites.key_width
    table = _position_table(sites)
    return [
        Tie(  # peft's: a row for each key, in it layer by layer key and value
            _PROMPT,
            "direct",
            forth=lambda direct: direct.permute(2, 0, 1, 3).reshape(config.length, -1),
            back=lambda saved: saved.view(config.length, layers, 2, width).permute(1, 2, 0, 3),
        ),
        Tie(_table_key(sites), None, blank=partial(_moved_on, table, config.length)),
    ]


def _position_table(sites: Sites) -> nn.Embedding:
    for name, module in sites.base.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    raise UserError(f"method=prefix: {type(sites.base).__name__} has no table of positions, which peft would shift")


def _table_key(sites: Sites) -> str:
    return f"{PREFIX}{module_names(sites)[_position_table(sites)]}.weight"


def _moved_on(table: nn.Embedding, length: int) -> torch.Tensor:
    """Return the table with the vector of each position `length` rows on; a row for padding, and those before, stay."""
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    moved = table.weight.detach().clone()
    moved[first + length :] = table.weight[first:-length]
    return moved


def _config(settings: Settings, tensors: Tensors, sites: Sites) -> PrefixConfig:
    check_settings(settings, _READ, _FIXED)
    length = required(settings, "num_virtual_tokens", int)
    if _table_key(sites) not in tensors:
        raise UserError(
            f"behind its prefix the text's positions begin at {length}, here they stay at 0: only a prefix that comes"
            " with a table of positions moved on, as `peftbench export --to peft` writes it, can be expressed"
        )
    return PrefixConfig(length=length)


PREFIX_TUNING = Converter(_settings, _ties, _config)

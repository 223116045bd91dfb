"""Sites: the same names for the same places of a transformer layer, in every architecture.

A layout is recognised by the exact module paths of one layer, never by substrings or by the model's name,
so a relative of a known architecture (CamemBERT, ERNIE, ...) works without an entry of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftbench.backbones.layouts import LAYOUTS, Layout
from peftbench.errors import UserError, nearest

LINEAR_SITES = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.up",
    "ffn.down",
)
RESIDUAL_SITES = ("attention.residual", "ffn.residual")
NORM_SITES = ("attention.norm", "ffn.norm")
WHOLE_SITES = ("embeddings", "final")


@dataclass(frozen=True)
class Sites:
    """The sites of one model: where methods attach, and the sizes they need."""

    model: Any
    base: Any
    layout: Layout
    layers: tuple[nn.Module, ...]
    hidden: int
    intermediate: int
    heads: int
    positions: int
    head_modules: tuple[nn.Module, ...] = ()
    tokenizer: Any = None
    fresh: frozenset[str] = frozenset()

    def at(self, site: str) -> list[nn.Module]:
        """Return the modules of a site, one a layer in order (`final`: the head's first module alone).

        Raises UserError for a name that is no site of this model.
        """
        if site == "embeddings":
            return [self.base.get_submodule(self.layout.encoder)]
        if site == "final" and self.head_modules:
            return [self.head_modules[0]]
        if site not in self.layout.sites:
            raise UserError(f"no site {site!r} in this {self.layout.name} model. {nearest(site, self.names)}")
        return [layer.get_submodule(self.layout.sites[site]) for layer in self.layers]

    @property
    def names(self) -> list[str]:
        """Names of all sites of this model."""
        return [*self.layout.sites, "embeddings", *(["final"] if self.head_modules else [])]

    @property
    def self_attention(self) -> list[nn.Module]:
        """The self-attention module of each layer."""
        return [layer.get_submodule(self.layout.self_attention) for layer in self.layers]

    @property
    def attention_interface(self) -> bool:
        """Whether attention runs through transformers' registry of attention functions."""
        return bool(getattr(self.base, "_supports_attention_backend", False))

    def backbone_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield name and parameter of the backbone; what the checkpoint lacked (`fresh`) is the head's."""
        return ((name, p) for name, p in self.base.named_parameters() if name not in self.fresh)

    def parameters_outside_layers(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the backbone's parameters that belong to no layer (embeddings, pooler)."""
        inside = self.layout.layers + "."
        return ((name, p) for name, p in self.backbone_parameters() if not name.startswith(inside))

    @property
    def device(self) -> torch.device:
        """The device the backbone's weights are on."""
        return next(self.base.parameters()).device


def find_sites(model: Any, tokenizer: Any = None, fresh: Iterable[str] = ()) -> Sites:
    """Map a transformers model (`AutoModel` or `AutoModelFor…`) to its sites.

    Args:
        model: the model.
        tokenizer: only needed by methods that start from a text (`PromptConfig(init="text")`).
        fresh: names of encoder parameters that no checkpoint filled (a new pooler): the head trains them.

    Raises UserError for an unknown architecture: it lists the modules of one layer and what an entry needs.
    """
    base = getattr(model, "base_model", model)
    for layout in LAYOUTS:
        layers = _submodule(base, layout.layers)
        if not isinstance(layers, nn.ModuleList) or not len(layers):
            continue
        paths = (*layout.sites.values(), layout.self_attention)
        if all(_submodule(layer, path) is not None for layer in layers for path in paths):
            up: Any = layers[0].get_submodule(layout.sites["ffn.up"])
            config = base.config
            head = () if base is model else tuple(_head_modules(model, base))
            return Sites(
                model=model,
                base=base,
                layout=layout,
                layers=tuple(layers),
                hidden=up.in_features,
                intermediate=up.out_features,
                heads=config.num_attention_heads,
                positions=_positions(config),
                head_modules=head,
                tokenizer=tokenizer,
                fresh=frozenset(fresh),
            )
    raise UserError(_unknown(base))


def _positions(config: Any) -> int:
    """Longest token sequence the model takes; models that pad positions reserve the first `pad_token_id + 1`."""
    reserved = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text")
    return config.max_position_embeddings - (config.pad_token_id + 1 if reserved else 0)


def _head_modules(model: nn.Module, base: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if child is not base and next(child.parameters(), None) is not None:
            yield child


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _unknown(base: nn.Module) -> str:
    """Describe an architecture that no layout fits."""
    lists = [(name, m) for name, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        return f"{type(base).__name__} has no list of layers, so no site to attach a method to."
    name, layers = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    found = ", ".join(path for path, module in layers[0].named_modules() if path and not list(module.children()))
    needed = ", ".join((*LINEAR_SITES, *RESIDUAL_SITES, *NORM_SITES))
    return (
        f"unknown architecture {type(base).__name__}: no layout in peftbench/backbones/sites.py fits it. "
        f"A layer of {name!r} holds: {found}. A new Layout entry names the module for each of: {needed}."
    )

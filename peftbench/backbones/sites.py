"""Sites: the same names for the same places of a transformer layer, in every architecture.

A layout is recognised by the exact module paths of one layer, never by substrings or by the model's name,
so a relative of a known architecture (CamemBERT, ERNIE, ...) works without an entry of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from peftbench.backbones.attachments import Attachments, attachments_of
from peftbench.backbones.image_tokens import ImageTokens, image_tokens
from peftbench.backbones.layouts import Layout
from peftbench.backbones.recognise import LINEAR_SITES, NORM_SITES, recognise, site_of, submodule
from peftbench.backbones.rows import Rows
from peftbench.backbones.site import Site, Span
from peftbench.errors import UserError, nearest

WHOLE_SITES = ("patches", "embeddings", "final.norm", "final")


@dataclass(frozen=True)
class Sites:
    """The sites of one model: where methods attach, and the sizes they need.

    Attributes:
        model: what a batch is given to. base: the encoder inside it.
        layout: of its architecture. layers: in order.
        hidden: width d of the hidden states. entry_width: of what enters the encoder.
        key_width: of a layer's keys and values, all heads together.
        positions: longest token sequence the model takes; for images, that of one of the size it was made for.
        head_modules: the head's modules, the first first.
        processor: the tokenizer or image processor; None where it was not given.
        fresh: names of the encoder's parameters that no checkpoint filled.
        image: how it makes tokens of an image; None for a model of text.
        rows: of a batch, that what is attached acts on; None for all.
    """

    model: Any
    base: Any
    layout: Layout
    layers: tuple[nn.Module, ...]
    hidden: int
    entry_width: int
    key_width: int
    positions: int
    head_modules: tuple[nn.Module, ...] = ()
    processor: Any = None
    fresh: frozenset[str] = frozenset()
    image: ImageTokens | None = None
    rows: Rows | None = None

    def at(self, name: str) -> list[Site]:
        """Return the sites of a name, one a layer in order; one in all of those of `WHOLE_SITES`.

        Raises UserError for a name that is no site of this model.
        """
        found = self._found(name)
        return found if self.rows is None else [replace(site, rows=self.rows) for site in found]

    def _found(self, name: str) -> list[Site]:
        if name == "embeddings":
            if self.layout.encoder is None:
                return [Site(self.base.get_submodule(self.layout.embeddings), name=name)]
            return [Site(self.base.get_submodule(self.layout.encoder), is_input=True, name=name)]
        if name == "final" and self.head_modules:
            return [Site(self.head_modules[0], is_input=True, name=name)]
        if name in self._outside:
            return [Site(self.base.get_submodule(self._outside[name]), name=name)]
        if name not in self.layout.sites:
            raise UserError(f"no site {name!r} in this {self.layout.name} model. {nearest(name, self.names)}")
        return [site_of(layer, self.layout, name, number) for number, layer in enumerate(self.layers)]

    def spans(self, name: str) -> list[Span]:
        """Return the sub-layer `attention` or `ffn` of each layer."""
        outputs = self.at(f"{name}.residual")
        if name == "ffn":
            inputs = [Site(site.module, is_input=True, layer=site.layer) for site in self.at("ffn.up")]
        elif self.layout.pre_norm:
            inputs = self.at("attention.norm")
        else:
            inputs = [Site(layer, is_input=True, layer=number) for number, layer in enumerate(self.layers)]
        return [Span(input, output) for input, output in zip(inputs, outputs, strict=True)]

    @property
    def final_width(self) -> int:
        """Width of what enters the head: that of its first linear map, which may read more than one token or layer."""
        if (width := getattr(self.model, "head_width", None)) is not None:
            return int(width)
        modules = (module for part in self.head_modules for module in part.modules())
        return next((module.in_features for module in modules if isinstance(module, nn.Linear)), self.hidden)

    @property
    def names(self) -> list[str]:
        """Names of all sites of this model."""
        return [*self.layout.sites, *self._outside, "embeddings", *(["final"] if self.head_modules else [])]

    @property
    def _outside(self) -> dict[str, str]:
        """Paths in the encoder of the sites outside of the layers."""
        norms = (path for path in self.layout.final_norms if hasattr(submodule(self.base, path), "weight"))
        found = {"patches": self.layout.patches, "final.norm": next(norms, "")}
        return {name: path for name, path in found.items() if path}

    @property
    def position_biases(self) -> list[nn.Module]:
        """Modules that give attention a bias for each two tokens, the special ones too."""
        named = self.base.named_modules()
        return [module for name, module in named if name.rpartition(".")[2] in self.layout.position_biases]

    @property
    def attachments(self) -> Attachments:
        """What is attached to the encoder, in order."""
        return attachments_of(self.base)

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

    def read_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what of the backbone answers depend on, as far as its layout tells: a mask token is among them."""
        return ((name, p) for name, p in self.backbone_parameters() if self.layout.reads(name))

    def parameters_outside_sites(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the read parameters that belong to no linear map or norm of the layout (embeddings, pooler)."""
        modules = [site.module for name in (*LINEAR_SITES, *NORM_SITES) for site in self.at(name)]
        inside = {id(p) for module in modules for p in module.parameters()}
        return ((name, p) for name, p in self.read_parameters() if id(p) not in inside)

    @property
    def device(self) -> torch.device:
        """The device the backbone's weights are on."""
        return next(self.base.parameters()).device


def find_sites(model: Any, processor: Any = None, fresh: Iterable[str] = ()) -> Sites:
    """Map a transformers model (`AutoModel` or `AutoModelFor…`) to its sites.

    Args:
        model: the model.
        processor: the tokenizer is only needed by methods that start from a text (`PromptConfig(init="text")`).
        fresh: names of encoder parameters that no checkpoint filled (a new pooler): the head trains them.

    Raises UserError for an unknown architecture: it lists the modules of one layer and what an entry needs.
    """
    layout, base = recognise(model)
    if base is not model and layout.inside and submodule(model, "text_model") is not None:
        model = base  # of two towers: the other is no head
    layers = base.get_submodule(layout.layers)
    hidden = site_of(layers[0], layout, "attention.output", 0).out_features
    encoder_input = layout.encoder_input and submodule(base, f"{layout.encoder}.{layout.encoder_input}")
    image = image_tokens(base, layout)
    return Sites(
        model=model,
        base=base,
        layout=layout,
        layers=tuple(layers),
        hidden=hidden,
        entry_width=encoder_input.in_features if isinstance(encoder_input, nn.Linear) else hidden,
        key_width=site_of(layers[0], layout, "attention.key", 0).out_features,
        positions=_positions(base) if image is None else image.count(*image.size),
        head_modules=() if base is model else tuple(_head_modules(model, base)),
        processor=processor,
        fresh=frozenset(fresh),
        image=image,
    )


def _positions(base: Any) -> int:
    """Longest token sequence the model takes; a position table with padding keeps its first rows for padding."""
    longest = base.config.max_position_embeddings
    tables = (m for name, m in base.named_modules() if name.endswith("position_embeddings"))
    table = next((m for m in tables if isinstance(m, nn.Embedding)), None)
    if table is None:
        return longest
    reserved = 0 if table.padding_idx is None else table.padding_idx + 1
    return min(longest, table.num_embeddings - reserved)


def _head_modules(model: nn.Module, base: nn.Module) -> Iterator[nn.Module]:
    for child in model.children():
        if child is not base and next(child.parameters(), None) is not None:
            yield child

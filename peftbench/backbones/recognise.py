"""Which layout a transformers model has, and which of its modules is the encoder."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from peftbench.backbones.layouts import LAYOUTS, Layout
from peftbench.backbones.site import Site
from peftbench.errors import UserError

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


def recognise(model: Any) -> tuple[Layout, Any]:
    """Return the layout of a model and its encoder, which may be the model itself.

    Raises UserError for an unknown architecture: it lists the modules of one layer and what an entry needs.
    """
    for layout in LAYOUTS:
        for base in _encoders(model, layout):
            if _fits(base, layout):
                return layout, base
    raise UserError(_unknown(getattr(model, "base_model", model)))


def _encoders(model: Any, layout: Layout) -> Iterator[nn.Module]:
    """Yield what may be the encoder: the base model's name may mislead (DINOv3) or say nothing (CLIP)."""
    yield getattr(model, "base_model", model)
    yield model
    if layout.inside and (inside := submodule(model, layout.inside)) is not None:
        yield inside


def _fits(base: nn.Module, layout: Layout) -> bool:
    layers = submodule(base, layout.layers)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    if layout.encoder is None and submodule(base, layout.embeddings) is None:
        return False
    if layout.patches and submodule(base, layout.patches) is None:  # a tower of texts may have the same layers
        return False
    found = all(submodule(layer, path) is not None for layer in layers for path in layout.paths)
    return found and _linear(layers, layout)


def site_of(layer: nn.Module, layout: Layout, name: str, number: int) -> Site:
    """Return a site of a layer; number: the layer's."""
    part = layout.place(name)
    module: Any = layer.get_submodule(part.path)
    if part.of == 1:
        return Site(module, name=name, layer=number)
    width = Site(module).out_features // part.of
    return Site(module, slice(part.index * width, (part.index + 1) * width), name=name, layer=number)


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module of a path; None where there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _linear(layers: Iterable[nn.Module], layout: Layout) -> bool:
    """Tell whether the linear sites are linear maps (grouped ones are not)."""
    modules = (layer.get_submodule(layout.place(name).path) for layer in layers for name in LINEAR_SITES)
    return all(isinstance(module, nn.Linear | Conv1D) for module in modules)


def _unknown(base: nn.Module) -> str:
    """Describe an architecture that no layout fits."""
    lists = [(name, m) for name, m in base.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        return f"{type(base).__name__} has no list of layers, so no site to attach a method to."
    name, layers = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    found = ", ".join(path for path, module in layers[0].named_modules() if path and not list(module.children()))
    needed = ", ".join((*LINEAR_SITES, *RESIDUAL_SITES, *NORM_SITES))
    return (
        f"unknown architecture {type(base).__name__}: no layout in peftbench/backbones/layouts/ fits it. "
        f"A layer of {name!r} holds: {found}. A new layout file names the module for each of: {needed}."
    )

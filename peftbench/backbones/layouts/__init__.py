"""Layouts: where the sites of each family of architectures lie; one file a family, found by being there."""

import pkgutil
from importlib import import_module

from peftbench.backbones.layouts.base import FusedSlice, Layout

LAYOUTS: tuple[Layout, ...] = tuple(
    import_module(f"{__name__}.{module.name}").LAYOUT
    for module in pkgutil.iter_modules(__path__)
    if module.name != "base"
)

__all__ = ["LAYOUTS", "Layout", "FusedSlice"]

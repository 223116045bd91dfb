"""Parameter-efficient fine-tuning methods for any transformers encoder whose sites are known.

In a notebook, without the runner::

    sites = find_sites(model)
    method = build(LoraConfig(rank=4), sites)
    method.attach(sites)
"""

import pkgutil
from importlib import import_module
from typing import Any

from peftbench.backbones.sites import Sites, find_sites
from peftbench.errors import UserError, nearest
from peftbench.methods.base import METHODS, Method

# each file registers its method, so a new method is a new file and nothing else
for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def method_class(name: str) -> type[Method]:
    """Return the class of the method called `name`; UserError with the nearest names where there is none."""
    if name not in METHODS:
        raise UserError(f"no method {name!r}. {nearest(name, METHODS)}")
    return METHODS[name]


def build(config: Any, sites: Sites) -> Method:
    """Build the method that `config` (one of the config dataclasses) describes, with fresh tensors.

    Args:
        config: e.g. `LoraConfig(rank=8)`; its type picks the method.
        sites: of the backbone it will be attached to, for the sizes.
    """
    for cls in METHODS.values():
        if cls.config_class is type(config):
            return cls(config, sites)
    raise UserError(f"{type(config).__name__} is no method's config. Choose from: {', '.join(sorted(METHODS))}.")


__all__ = ["METHODS", "Method", "Sites", "build", "find_sites", "method_class"]

"""Parameter-efficient fine-tuning methods for any transformers encoder whose sites are known.

In a notebook, without the runner::

    sites = find_sites(model)
    method = build(LoraConfig(rank=4), sites)
    method.attach(sites)

A method outside this package: a module that defines it, named like the method in the entry-point group
`peftbench.methods` of its distribution, and `method/NAME.yaml` in a folder given as `hydra.searchpath`.
"""

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from peftbench.backbones.sites import Sites, find_sites
from peftbench.errors import UserError, nearest
from peftbench.methods.base import METHODS, Method
from peftbench.methods.parts import Parts, PartsMethod
from peftbench.methods.size import check_size

# each file registers its method, so a new method is a new file and nothing else
for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
# and so does each module that an installed package names in its entry-point group
for _entry in entry_points(group="peftbench.methods"):
    try:
        _entry.load()
    except Exception as error:  # whatever another package's code raises
        raise UserError(
            f"cannot load the method {_entry.name} ({_entry.value}): {error}; mend or uninstall it"
        ) from error


def method_class(name: str) -> type[Method]:
    """Return the class of the method called `name`; UserError with the nearest names where there is none."""
    if name not in METHODS:
        raise UserError(f"no method {name!r}. {nearest(name, METHODS)}")
    return METHODS[name]


def build(config: Any, sites: Sites, parts: Parts | None = None) -> Method:
    """Build the method that `config` (one of the config dataclasses) describes, with fresh tensors.

    Args:
        config: e.g. `LoraConfig(rank=8)`; its type picks the method.
        sites: of the backbone it will be attached to, for the sizes.
        parts: tensors of the runs that the method is made of, for methods that are made of runs.

    Raises UserError for settings that do not fit the backbone, or that take more memory than this machine has.
    """
    for cls in METHODS.values():
        if cls.config_class is type(config):
            check_size(cls, config, sites)
            method = cls(config, sites)
            if parts is not None:
                if not isinstance(method, PartsMethod):
                    raise TypeError(f"method {method.name} is made of no other runs")
                method.fill_parts(parts)
            return method
    raise UserError(f"{type(config).__name__} is no method's config. Choose from: {', '.join(sorted(METHODS))}.")


__all__ = ["METHODS", "Method", "Sites", "build", "find_sites", "method_class"]

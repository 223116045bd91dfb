"""The linear maps of a model by the names of their modules, where one module may hold several maps."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from peftbench.backbones.site import Site
from peftbench.backbones.sites import LINEAR_SITES, Sites
from peftbench.errors import UserError
from peftbench.serving.exchange.converter import module_names


@dataclass(frozen=True)
class Place:
    """A linear site in one layer."""

    name: str
    layer: int
    site: Site


def maps_by_module(names: Iterable[str], sites: Sites) -> dict[str, list[Place]]:
    """Return the module of each linear site of these names, and the sites it holds: one, or fused ones in order."""
    modules = module_names(sites)
    found: dict[str, list[Place]] = {}
    for name in names:
        for layer, site in enumerate(sites.at(name)):
            found.setdefault(modules[site.module], []).append(Place(name, layer, site))
    return found


def sites_of_modules(acted_on: Iterable[str], sites: Sites) -> dict[str, list[Place]]:
    """Return `maps_by_module` of the modules acted on; UserError for one that is no linear site."""
    known = maps_by_module(LINEAR_SITES, sites)
    for module in acted_on:
        if module not in known:
            raise UserError(f"it acts on {module}, which is no linear map of this model's layers")
    return {module: known[module] for module in acted_on}


def in_every_layer(places: Iterable[Place], sites: Sites) -> list[str]:
    """Return the names of these sites in the order of a layer; UserError where one is missing in some layer."""
    layers: dict[str, set[int]] = {}
    for place in places:
        layers.setdefault(place.name, set()).add(place.layer)
    for name, numbers in layers.items():
        if missing := sorted(set(range(len(sites.layers))) - numbers):
            raise UserError(f"it acts on {name} in some layers and not in layer {missing[0]}")
    return [name for name in LINEAR_SITES if name in layers]


def shortest_endings(wanted: Iterable[str], sites: Sites) -> list[str]:
    """Return the shortest endings of these modules' names that no other module's name has; whole names in the end."""
    wanted = set(wanted)
    every = [name for name, module in sites.model.named_modules() if name and isinstance(module, nn.Module)]
    deepest = max(name.count(".") for name in wanted) + 1
    for depth in range(1, deepest):
        endings = {".".join(name.split(".")[-depth:]) for name in wanted}
        if {name for name in every if any(name == end or name.endswith(f".{end}") for end in endings)} == wanted:
            return sorted(endings)
    return sorted(wanted)

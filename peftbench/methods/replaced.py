"""Parameters of the backbone that a method trains: clones of them, put in their places while it is attached."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

from torch import nn

from peftbench.backbones.attachments import Change, Parameters
from peftbench.backbones.sites import Sites
from peftbench.methods.keys import unescape


def replacements(sites: Sites, clones: nn.ParameterDict, bare: Callable[[], frozenset[int]]) -> dict[nn.Module, Change]:
    """Return by module what puts the clones in the place of its parameters.

    Args:
        sites: of the backbone. clones: by the parameter's name in the encoder, as a key (`methods.keys`).
        bare: returns the layers that keep their own parameters now; any of them, and those outside of layers stay too.
    """
    by_module: dict[nn.Module, dict[str, nn.Parameter]] = defaultdict(dict)
    for key, clone in clones.items():
        path, _, leaf = unescape(key).rpartition(".")
        by_module[sites.base.get_submodule(path)][leaf] = clone
    layer_of = {module: number for number, layer in enumerate(sites.layers) for module in layer.modules()}
    return {module: partial(_put, layer_of.get(module), bare, put) for module, put in by_module.items()}


def _put(layer: int | None, bare: Callable[[], frozenset[int]], clones: Parameters, before: Parameters) -> Parameters:
    is_bare = bool(bare()) if layer is None else layer in bare()
    return {} if is_bare else clones

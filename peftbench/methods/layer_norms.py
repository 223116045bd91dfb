"""The backbone's layer norms, where a method trains them beside its own tensors."""

from torch import nn

from peftbench.backbones.sites import NORM_SITES, Sites


def layer_norm_names(sites: Sites, layers: list[int]) -> list[str]:
    """Return the names of weight and bias of the layer norms in these layers.

    Of all layers together also those outside of them: the embeddings', and a final one.
    """
    roots = [sites.base] if len(layers) == len(sites.layers) else [sites.layers[number] for number in layers]
    norms = {module for root in roots for module in root.modules() if isinstance(module, nn.LayerNorm)}
    paths = {path for path, module in sites.base.named_modules() if module in norms}
    return [name for name, _ in sites.read_parameters() if name.rpartition(".")[0] in paths]


def count_layer_norms(sites: Sites, layers: list[int]) -> int:
    """Return how many parameters these are: 2d a norm (d without a bias), and those outside of the layers."""
    names = set(layer_norm_names(sites, layers))
    outside = sum(p.numel() for name, p in sites.parameters_outside_sites() if name in names)
    inside = (sites.at(site)[number].module for site in NORM_SITES for number in layers)
    return outside + sum(sites.hidden * len(list(norm.parameters())) for norm in inside)

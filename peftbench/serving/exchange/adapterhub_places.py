"""Where AdapterHub's `adapters` keeps what it adds to a model, and the models it knows."""

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.serving.exchange.converter import module_names

# by the model's type: where the adapters behind attention and feed-forward part lie in a layer, and the prefix's name
_BERT = ({"attention.residual": "attention.output", "ffn.residual": "output"}, "self_prefix")
_DISTILBERT = ({"attention.residual": "attention_adapters", "ffn.residual": "output_adapters"}, "self")
_KNOWN = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra", "deberta-v2"), _BERT),
    "distilbert": _DISTILBERT,
}


def check_known(sites: Sites) -> None:
    """Raise UserError for a model that the library does not know."""
    kind = sites.base.config.model_type
    if kind not in _KNOWN:
        raise UserError(f"AdapterHub's adapters does not know {kind} models, only {', '.join(sorted(_KNOWN))}")


def bottleneck_key(sites: Sites, site: str, layer: int, name: str) -> str:
    """Return the key of a bottleneck at a residual site, to which its tensors' own names are added."""
    places, _ = _KNOWN[sites.base.config.model_type]
    return f"{module_names(sites)[sites.layers[layer]]}.{places[site]}.adapters.{name}."


def prefix_key(sites: Sites, name: str) -> str:
    """Return the key of the prefixes of all layers, to which their tensors' own names are added."""
    _, prefix_name = _KNOWN[sites.base.config.model_type]
    return f"{base_name(sites)}.prefix_tuning.prefix_tunings.{name}.{prefix_name}."


def base_name(sites: Sites) -> str:
    """Return the encoder's name in the model."""
    return module_names(sites)[sites.base]


def left_out(layers: list[int], sites: Sites) -> list[int]:
    """Return the layers that carry nothing, as the library says where its adapters are."""
    return [number for number in range(len(sites.layers)) if number not in layers]

"""More keys and values in front of those of each layer's self-attention.

Architectures that use transformers' registry of attention functions get one that prepends; others (MPNet,
DeBERTa) get more rows inside each self-attention, which are dropped again behind it. There a prefix has no
relative position in MPNet, and stands before the text in DeBERTa. Token positions stay 0 … n-1. Every token
sees the prefix, in a layer with a sliding window too; keys stand as they are given, a rotary position is not
applied to them.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from peftbench.backbones.prepended import KeySource, Prepended, PrependedToRows
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError

_REGISTERED = "peftbench_prefix_"


def check_reachable(sites: Sites) -> None:
    """Raise UserError where nothing can be put in front of this model's keys."""
    if not sites.attention_interface and not sites.layout.rows_prepended:
        raise UserError(
            f"a prefix cannot reach the attention of {type(sites.base).__name__}, which goes through no attention"
            " function of transformers' registry: choose another method"
        )


def prepend_keys(sites: Sites, source: KeySource) -> "PrependedKeys":
    """Let every layer attend to the source's keys and values too, until the handle is removed.

    With `sites.rows` these rows of the batch alone do; others that share the batch come with rows of their own.
    """
    check_reachable(sites)
    prepended = _PREPENDED.get(sites.base)
    if prepended is None:
        prepended = _PREPENDED[sites.base] = Prepended() if sites.rows is None else PrependedToRows()
        prepended.add(source, sites.rows)
        prepended.handles += _route(sites, prepended) if sites.attention_interface else _widen_rows(sites, prepended)
    else:
        prepended.add(source, sites.rows)
    return PrependedKeys(sites.base, source)


@dataclass(frozen=True, eq=False)
class PrependedKeys:
    """Takes one source of keys and values away again."""

    base: nn.Module
    source: KeySource

    def remove(self) -> None:
        """Attend without this source; without any, as the backbone does by itself."""
        prepended = _PREPENDED[self.base]
        prepended.remove(self.source)
        if not prepended.sources:
            for handle in reversed(prepended.handles):
                handle.remove()
            del _PREPENDED[self.base]


_PREPENDED: WeakKeyDictionary[nn.Module, Prepended] = WeakKeyDictionary()


def prepend(prefix: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values with the prefix before them.

    Args:
        prefix: (2, length, heads · head_dim), keys then values; or of each row, (2, batch, length, heads · head_dim).
        keys: (batch, heads, sequence, head_dim). values: the same shape.
    """
    batch, heads, _, head_dim = keys.shape
    rows = prefix.shape[1] if prefix.dim() == 4 else 1
    both = prefix.reshape(2, rows, -1, heads, head_dim).transpose(2, 3).expand(-1, batch, -1, -1, -1)
    return torch.cat([both[0], keys], dim=2), torch.cat([both[1], values], dim=2)


# through transformers' attention functions --------------------------------------------------------------

Inner = Callable[..., Any]
_ROUTED: WeakKeyDictionary[nn.Module, tuple[Prepended, int, Inner]] = WeakKeyDictionary()


class _Routing:
    """Points a backbone's attention at `_attend` until removed."""

    def __init__(self, sites: Sites, prepended: Prepended) -> None:
        # a model has imported these; to know the methods there are takes no second for them
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

        self._config: Any = sites.base.config
        self._before = str(self._config._attn_implementation).removeprefix(_REGISTERED)  # of a model that shares it
        self._modules = sites.self_attention
        inner = _function_of(self._modules[0], self._before)
        name = _REGISTERED + self._before
        AttentionInterface.register(name, _attend)
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[self._before])
        for layer, module in enumerate(self._modules):
            _ROUTED[module] = prepended, layer, inner
        self._config._attn_implementation = name

    def remove(self) -> None:
        """Give the backbone its own attention function back."""
        for module in self._modules:
            _ROUTED.pop(module, None)
        if not any(module.config is self._config for module in _ROUTED):
            self._config._attn_implementation = self._before


def _function_of(module: nn.Module, name: str) -> Inner:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    eager = sys.modules[type(module).__module__].eager_attention_forward
    function: Inner = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)
    return function


def _route(sites: Sites, prepended: Prepended) -> list[Any]:
    forget = sites.base.register_forward_pre_hook(lambda _module, _args: prepended.masks.clear())
    return [forget, _Routing(sites, prepended)]


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> Any:
    """Attend as the registry asks, with the layer's prefix before keys and values."""
    if module not in _ROUTED:  # of another model that shares the config
        name = str(getattr(module.config, "_attn_implementation", "")).removeprefix(_REGISTERED)
        return _function_of(module, name)(module, query, key, value, attention_mask, **kwargs)
    prepended, layer, inner = _ROUTED[module]
    prefix = prepended.keys(layer)
    if length := prefix.shape[-2]:
        key, value = prepend(prefix.to(key.dtype), key, value)
        attention_mask = prepended.widened(attention_mask, length, key)
    return inner(module, query, key, value, attention_mask, **kwargs)


# through more rows in each self-attention ---------------------------------------------------------------


def _widen_rows(sites: Sites, prepended: Prepended) -> list[Any]:
    return [handle for layer in range(len(sites.layers)) for handle in _widen_layer(sites, prepended, layer)]


def _widen_layer(sites: Sites, prepended: Prepended, layer: int) -> Iterator[RemovableHandle]:
    rows: list[torch.Tensor] = []

    def widen(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        hidden, mask, *rest = args
        length = prepended.keys(layer).shape[-2]
        if not length:
            return None
        rows[:] = [F.pad(hidden, (0, 0, length, 0))]
        if mask is None and isinstance(prepended, PrependedToRows):
            mask = hidden.new_zeros(hidden.shape[0], 1, 1, hidden.shape[1])
        if mask is not None:
            more_queries = length if mask.shape[-2] > 1 else 0
            mask = F.pad(mask, (length, 0, more_queries, 0), value=1 if sites.layout.multiplicative_mask else 0)
            mask = prepended.hide(mask, 0 if sites.layout.multiplicative_mask else torch.finfo(mask.dtype).min)
        if sites.layout.multiplicative_mask:
            kwargs["relative_pos"] = None  # built anew for the wider sequence
        elif rest and rest[0] is not None:
            rest[0] = F.pad(rest[0], (length, 0, length, 0))
        return (rows[0], mask, *rest), kwargs

    def fill(which: int) -> Callable[..., torch.Tensor | None]:
        def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
            if not rows or args[0] is not rows[0]:  # DeBERTa sends its relative embeddings through the same maps
                return None
            prefix = prepended.keys(layer)[which].to(output.dtype).expand(output.shape[0], -1, -1)
            return torch.cat([prefix, output[:, prefix.shape[1] :]], dim=1)

        return hook

    def narrow(module: nn.Module, args: tuple, output: tuple) -> tuple | None:
        if not rows:
            return None
        rows.clear()
        return (output[0][:, prepended.keys(layer).shape[-2] :], *output[1:])

    yield sites.self_attention[layer].register_forward_pre_hook(widen, with_kwargs=True)
    yield sites.at("attention.key")[layer].module.register_forward_hook(fill(0))
    yield sites.at("attention.value")[layer].module.register_forward_hook(fill(1))
    yield sites.self_attention[layer].register_forward_hook(narrow)

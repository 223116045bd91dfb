"""Prefix tuning (Li & Liang 2021; P-tuning v2, Liu et al. 2022): trained keys and values in every layer.

Each layer attends to `length` more keys and values before its own. After P-tuning v2 the default is direct
(no reparametrisation) and starts from N(0, 0.02). Token positions stay 0 … n-1: transformers' own
`past_key_values` route would shift them by `length`.

Architectures that use transformers' registry of attention functions get one that prepends; the others
(MPNet, DeBERTa) get `length` more rows inside each self-attention, which are dropped again behind it.
There a prefix has no relative position in MPNet, and stands before the text in DeBERTa.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from peftbench.backbones.sites import Sites
from peftbench.methods.base import Handle, Method, check_at_least

_REGISTERED = "peftbench_prefix_"


@dataclass(frozen=True)
class PrefixConfig:
    """Settings of prefix tuning.

    Attributes:
        length: number of prefix keys and values a layer.
        reparametrize: train them through Embedding(length, d) → Linear(d, mid_dim) → tanh → Linear (dropped
            after training, as in Li & Liang).
        mid_dim: inner dimension of that network.
        init_std: standard deviation of the direct prefix, or of the embedding that is reparametrised.
    """

    length: int = 20
    reparametrize: bool = False
    mid_dim: int = 512
    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_at_least("length", self.length, 1)
        check_at_least("mid_dim", self.mid_dim, 1)
        check_at_least("init_std", self.init_std, 0)


def prepend(prefix: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values with the prefix before them.

    Args:
        prefix: (2, length, heads · head_dim), keys then values.
        keys: (batch, heads, sequence, head_dim). values: the same shape.
    """
    batch, heads, _, head_dim = keys.shape
    own = prefix.view(2, 1, -1, heads, head_dim).transpose(2, 3).expand(-1, batch, -1, -1, -1)
    return torch.cat([own[0], keys], dim=2), torch.cat([own[1], values], dim=2)


class Prefix(Method, name="prefix"):
    """The prefixes of all layers, direct or through a network that is folded away after training."""

    config_class = PrefixConfig
    config: PrefixConfig

    def __init__(self, config: PrefixConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.shape = (len(sites.layers), 2, config.length, sites.hidden)
        if config.reparametrize:
            self.embedding = nn.Parameter(torch.empty(config.length, sites.hidden))
            nn.init.normal_(self.embedding, std=config.init_std)
            self.network = nn.Sequential(
                nn.Linear(sites.hidden, config.mid_dim),
                nn.Tanh(),
                nn.Linear(config.mid_dim, 2 * len(sites.layers) * sites.hidden),
            )
        else:
            self.direct = nn.Parameter(torch.empty(self.shape))
            nn.init.normal_(self.direct, std=config.init_std)
        self._current: torch.Tensor | None = None
        self._mask: tuple[torch.Tensor, torch.Tensor] | None = None

    def prefixes(self) -> torch.Tensor:
        """Return the prefixes, (layers, 2, length, d): keys then values."""
        if not self.config.reparametrize:
            return self.direct
        layers, _, length, hidden = self.shape
        return self.network(self.embedding).view(length, layers, 2, hidden).permute(1, 2, 0, 3)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Route each layer's attention over its prefix."""
        yield sites.base.register_forward_pre_hook(self._before_forward)
        if sites.attention_interface:
            yield _Routing(self, sites)
        else:
            for layer in range(len(sites.layers)):
                yield from self._more_rows(sites, layer)

    def _before_forward(self, module: nn.Module, args: tuple) -> None:
        self._current = self.prefixes().contiguous()
        self._mask = None

    # through transformers' attention functions ----------------------------------------------------------

    def attend(
        self,
        layer: int,
        inner: Callable[..., Any],
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> Any:
        """Run the attention function `inner` with the prefix of `layer` before keys and values."""
        assert self._current is not None
        key, value = prepend(self._current[layer].to(key.dtype), key, value)
        return inner(module, query, key, value, self._widened(attention_mask), **kwargs)

    def _widened(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return the mask with `length` allowed columns in front; all layers share one mask, so it is kept."""
        if mask is None:
            return None
        if self._mask is None or self._mask[0] is not mask:
            allowed = 0.0 if mask.is_floating_point() else 1
            self._mask = (mask, F.pad(mask, (self.config.length, 0), value=allowed))
        return self._mask[1]

    # through more rows in each self-attention -----------------------------------------------------------

    def _more_rows(self, sites: Sites, layer: int) -> Iterable[Handle]:
        length = self.config.length
        mask_is_product = sites.layout.name == "deberta"
        rows: list[torch.Tensor] = []

        def widen(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            hidden, mask, *rest = args
            rows[:] = [F.pad(hidden, (0, 0, length, 0))]
            if mask is not None:
                more_queries = length if mask.shape[-2] > 1 else 0
                mask = F.pad(mask, (length, 0, more_queries, 0), value=1 if mask_is_product else 0)
            if mask_is_product:
                kwargs["relative_pos"] = None  # built anew for the wider sequence
            elif rest and rest[0] is not None:
                rest[0] = F.pad(rest[0], (length, 0, length, 0))
            return (rows[0], mask, *rest), kwargs

        def fill(which: int) -> Callable[..., torch.Tensor | None]:
            def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
                if args[0] is not rows[0]:  # DeBERTa sends its relative embeddings through the same maps
                    return None
                assert self._current is not None
                own = self._current[layer, which].to(output.dtype).expand(output.shape[0], -1, -1)
                return torch.cat([own, output[:, length:]], dim=1)

            return hook

        def narrow(module: nn.Module, args: tuple, output: tuple) -> tuple:
            rows.clear()
            return (output[0][:, length:], *output[1:])

        yield sites.self_attention[layer].register_forward_pre_hook(widen, with_kwargs=True)
        yield sites.at("attention.key")[layer].register_forward_hook(fill(0))
        yield sites.at("attention.value")[layer].register_forward_hook(fill(1))
        yield sites.self_attention[layer].register_forward_hook(narrow)

    # --------------------------------------------------------------------------------------------------

    @property
    def extra_tokens(self) -> int:
        """Each sequence is attended to with `length` more keys."""
        return self.config.length

    @property
    def keeps_first_row(self) -> bool:
        """Not where the last layer sees more rows than tokens."""
        return all(sites.attention_interface for sites in self._sites)

    def exported(self) -> tuple[PrefixConfig, dict[str, torch.Tensor]]:
        """Fold the network away: what inference needs is the prefixes alone."""
        with torch.no_grad():
            direct = self.prefixes().contiguous()
        return replace(self.config, reparametrize=False), {"direct": direct}

    @staticmethod
    def count(config: PrefixConfig, sites: Sites) -> int:
        """2·length·d a layer; with the network length·d + (d+1)·mid + (mid+1)·2·L·d."""
        d, layers = sites.hidden, len(sites.layers)
        if not config.reparametrize:
            return 2 * config.length * d * layers
        mid = config.mid_dim
        return config.length * d + (d + 1) * mid + (mid + 1) * 2 * layers * d


class _Routing:
    """Points a backbone's attention at the prefix until removed."""

    layers: dict[nn.Module, tuple[Prefix, int, Callable[..., Any]]] = {}

    def __init__(self, method: Prefix, sites: Sites) -> None:
        self._config: Any = sites.base.config
        self._before: str = self._config._attn_implementation
        self._modules = sites.self_attention
        eager = sys.modules[type(self._modules[0]).__module__].eager_attention_forward
        inner = ALL_ATTENTION_FUNCTIONS.get_interface(self._before, eager)
        name = _REGISTERED + self._before
        AttentionInterface.register(name, _prefix_attention)
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[self._before])
        for layer, module in enumerate(self._modules):
            self.layers[module] = (method, layer, inner)
        self._config._attn_implementation = name

    def remove(self) -> None:
        """Give the backbone its own attention function back."""
        self._config._attn_implementation = self._before
        for module in self._modules:
            self.layers.pop(module, None)


def _prefix_attention(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Attend as the registry asks: `(module, query, key, value, attention_mask, …)`."""
    method, layer, inner = _Routing.layers[module]
    return method.attend(layer, inner, module, *args, **kwargs)

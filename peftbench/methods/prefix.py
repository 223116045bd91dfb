"""Prefix tuning (Li & Liang 2021; P-tuning v2, Liu et al. 2022): trained keys and values in every layer.

Each layer attends to `length` more keys and values before its own. After P-tuning v2 the default is direct
(no reparametrisation) and starts from N(0, 0.02); its dropout of the prefix (0.1) is left out. Token positions stay
0 … n-1: transformers' own `past_key_values` route would shift them by `length`. How each architecture's attention is
reached, and what that means for positions and sliding windows: `peftbench.backbones.attention`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.attention import KeySource, check_reachable, prepend_keys
from peftbench.backbones.sites import Sites
from peftbench.methods.base import Method, check_at_least
from peftbench.methods.unchanged import WhileUnchanged


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


class Prefix(Method, name="prefix"):
    """The prefixes of all layers, direct or through a network that is folded away after training."""

    config_class = PrefixConfig
    config: PrefixConfig

    def __init__(self, config: PrefixConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        check_reachable(sites)
        self.shape = (len(sites.layers), 2, config.length, sites.key_width)
        if config.reparametrize:
            self.embedding = nn.Parameter(torch.empty(config.length, sites.hidden))
            nn.init.normal_(self.embedding, std=config.init_std)
            self.network = nn.Sequential(
                nn.Linear(sites.hidden, config.mid_dim),
                nn.Tanh(),
                nn.Linear(config.mid_dim, 2 * len(sites.layers) * sites.key_width),
            )
        else:
            self.direct = nn.Parameter(torch.empty(self.shape))
            nn.init.normal_(self.direct, std=config.init_std)
        self._current: torch.Tensor | None = None
        self._frozen = WhileUnchanged[torch.Tensor]()
        self._through_interface = sites.attention_interface

    def prefixes(self) -> torch.Tensor:
        """Return the prefixes, (layers, 2, length, key_width): keys then values."""
        if not self.config.reparametrize:
            return self.direct
        layers, _, length, width = self.shape
        return self.network(self.embedding).view(length, layers, 2, width).permute(1, 2, 0, 3)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Let each layer attend to its prefix too."""
        yield sites.base.register_forward_pre_hook(self._before_forward)
        yield prepend_keys(sites, KeySource(self._keys))

    def _before_forward(self, module: nn.Module, args: tuple) -> None:
        self._current = self._frozen.get([*self.parameters()], lambda: self.prefixes().contiguous())

    def _keys(self, layer: int) -> torch.Tensor:
        assert self._current is not None
        if layer in self.bare:
            return self._current.detach().select(-4, layer)[..., :0, :]
        return self._current.select(-4, layer)

    @property
    def extra_positions(self) -> int:
        """Each sequence is attended to with `length` more keys."""
        return self.config.length

    @property
    def keeps_first_token(self) -> bool:
        """Not where keys get in as more tokens of the last layer's input."""
        return self._through_interface

    def exported(self) -> tuple[PrefixConfig, dict[str, torch.Tensor]]:
        """Fold the network away: what inference needs is the prefixes alone."""
        with torch.no_grad():
            direct = self.prefixes().contiguous()
        return replace(self.config, reparametrize=False), {"direct": direct}

    @staticmethod
    def count(config: PrefixConfig, sites: Sites) -> int:
        """2·length·d_key a layer; with the network length·d + (d+1)·mid + (mid+1)·2·L·d_key."""
        d, width, layers = sites.hidden, sites.key_width, len(sites.layers)
        if not config.reparametrize:
            return 2 * config.length * width * layers
        mid = config.mid_dim
        return config.length * d + (d + 1) * mid + (mid + 1) * 2 * layers * width

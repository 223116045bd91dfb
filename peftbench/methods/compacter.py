"""Compacter (Karimi Mahabadi et al. 2021): bottleneck adapters whose maps are sums of Kronecker products.

x + PHM_up(gelu(PHM_down(x))), each with a bias; the weight of a PHM layer is Σ_i A_i ⊗ (s_i·t_i) over n terms
(§3.2). The n matrices A_i (n, n) are one set for all layers, places and maps; s_i and t_i are each map's own.
Compacter++ is the same behind the feed-forward part alone: `position=ffn`.

After rabeehk/compacter: A from N(0, 1e-4), s and t Xavier-uniform with gain √2 (hypercomplex/inits.py), layer norms
trained, gelu in its tanh form. There T5's adapter stands before the dropout; here it stands behind it as our other
adapters do, and as in AdapterHub.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.adapter import POSITIONS as ADAPTER_POSITIONS
from peftbench.methods.base import check_at_least, check_choice
from peftbench.methods.bottleneck import (
    ACTIVATIONS,
    BottleneckConfig,
    BottleneckMethod,
    adapter_sites,
    bottleneck_update,
    layer_numbers,
)
from peftbench.methods.layer_norms import count_layer_norms, layer_norm_names
from peftbench.methods.unchanged import WhileUnchanged

POSITIONS = {name: ADAPTER_POSITIONS[name] for name in ("attention", "ffn", "both")}
RULE_STD = 1e-4


@dataclass(frozen=True)
class CompacterConfig(BottleneckConfig):
    """Settings of Compacter, beside those of `BottleneckConfig` (m = 24, BERT-base's at a reduction factor of 32).

    Attributes:
        phm_dim: n, number and size of the shared matrices; it divides the bottleneck and the model's width.
        rank: of each s_i·t_i.
        position: attention | ffn (Compacter++) | both (Compacter).
        activation: gelu_new (gelu by tanh, as the official code) | gelu | relu | swish | tanh.
        train_layer_norm: also train the backbone's layer norms: with adapters in all layers every one, the
            embeddings' included, else those of the layers that carry adapters.
    """

    default_bottleneck: ClassVar[int] = 24
    phm_dim: int = 4
    rank: int = 1
    position: str = "both"
    activation: str = "gelu_new"
    train_layer_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("phm_dim", self.phm_dim, 1)
        check_at_least("rank", self.rank, 1)
        check_choice("position", self.position, POSITIONS)
        check_choice("activation", self.activation, ACTIVATIONS)


def phm_weight(rule: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return Σ_i A_i ⊗ (s_i·t_i) of several maps at once, (maps, d_out, d_in), the way `F.linear` takes a weight.

    Under autocast it stays in the tensors' own type: it is small, and bf16 would round every term.

    Args:
        rule: A, (n, n, n). left: s, (maps, n, d_in / n, r). right: t, (maps, n, r, d_out / n). All may be stacked.
    """
    with torch.autocast(rule.device.type, enabled=False):
        product = torch.einsum("...nij,...mnpq->...mjqip", rule, left @ right)
    return product.flatten(-2).flatten(-3, -2)


class PhmMaps(nn.Module):
    """The tensors of one PHM layer a place: s and t in stacks, and the biases, each its own so that none is decayed."""

    def __init__(self, maps: int, n: int, rank: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(maps, n, d_in // n, rank))
        self.right = nn.Parameter(torch.empty(maps, n, rank, d_out // n))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(d_out)) for _ in range(maps))
        for factors in (self.left, self.right):
            for matrix in factors.flatten(0, 1):
                nn.init.xavier_uniform_(matrix, gain=math.sqrt(2))


Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Compacter(BottleneckMethod, name="compacter"):
    """The shared matrices, and the PHM layers of all places, each kind in one stack."""

    config_class = CompacterConfig
    config: CompacterConfig

    def __init__(self, config: CompacterConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        n, hidden, size = config.phm_dim, sites.hidden, config.size(sites.hidden)
        if size % n or hidden % n:
            raise UserError(f"method.phm_dim={n} must divide the bottleneck, {size}, and the model's width, {hidden}")
        self.rule = nn.Parameter(torch.empty(n, n, n))
        nn.init.normal_(self.rule, std=RULE_STD)
        maps = len(_places(config, sites))
        self.down = PhmMaps(maps, n, config.rank, hidden, size)
        self.up = PhmMaps(maps, n, config.rank, size, hidden)
        if config.train_layer_norm:
            self.train_backbone(sites, layer_norm_names(sites, layer_numbers(config, sites)))
        self._current: list[Tensors] = []
        self._multiplied = WhileUnchanged[list[Tensors]]()

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Pass each place's tensor through its adapter."""
        yield sites.base.register_forward_pre_hook(self._before_forward)
        for index, place in enumerate(_places(self.config, sites)):
            yield place.replace(partial(self._adapt, index))

    def adapters(self) -> list[Tensors]:
        """Multiply the factors out: weight (m, d) and bias of the way down, weight (d, m) and bias of that up."""
        down, up = (phm_weight(self.rule, maps.left, maps.right) for maps in (self.down, self.up))
        return list(zip(down.unbind(-3), self.down.biases, up.unbind(-3), self.up.biases, strict=True))

    def _before_forward(self, module: nn.Module, args: tuple) -> None:
        factors = (self.rule, self.down.left, self.down.right, self.up.left, self.up.right)
        self._current = self._multiplied.get(factors, self.adapters)

    def _adapt(self, index: int, x: torch.Tensor) -> torch.Tensor:
        return x + bottleneck_update(x, *self._current[index], ACTIVATIONS[self.config.activation])

    @staticmethod
    def count(config: CompacterConfig, sites: Sites) -> int:
        """2(d + m)·r for the factors and d + m for the biases a place, and n³; with the norms theirs (§4).

        The paper's formula leaves the biases out, its percentages count them.
        """
        widths = sites.hidden + config.size(sites.hidden)
        norms = count_layer_norms(sites, layer_numbers(config, sites)) if config.train_layer_norm else 0
        return len(_places(config, sites)) * (2 * widths * config.rank + widths) + config.phm_dim**3 + norms


def _places(config: CompacterConfig, sites: Sites) -> list[Site]:
    return [place for name in POSITIONS[config.position] for place in adapter_sites(config, sites, name)]

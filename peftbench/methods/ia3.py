"""IA³ (Liu et al. 2022, Few-shot parameter-efficient fine-tuning, §3.3): learned factors on inner activations.

l_k ⊙ K, l_v ⊙ V and (l_ff ⊙ γ(W_1·x))·W_2, all ones at the start, so that it starts as the backbone. With `targets`
the factors go elsewhere too: on the output of query, key, value and up, on the input of output and down. Hugging
Face peft's default for BERT is key, value, output, down, since its `output.dense` fits two maps; AdapterHub's scales
behind `up` and before the activation, which is key, value, up.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.methods.base import Method
from peftbench.methods.folding import Fold
from peftbench.methods.targets import check_targets, short_name, target_sites

# the maps that close a sub-layer: between them and its inner activations nothing stands
SCALED_INPUTS = ("attention.output", "ffn.down")


@dataclass(frozen=True)
class Ia3Config:
    """Settings of IA³.

    Attributes:
        targets: linear sites: query, key, value, up (factors on their output), output, down (on their input), or
            `all`. Where another method acts on the same maps, attach and merge IA³ behind it: what it scales is
            that method's too.
    """

    targets: list[str] = field(default_factory=lambda: ["key", "value", "down"])

    def __post_init__(self) -> None:
        check_targets(self.targets)


def rescale(x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return factors ⊙ x; x: (..., d), factors: (d,); stacked (groups, rows, d) and (groups, d)."""
    return x * factors.to(x.dtype).unsqueeze(-2)


class Ia3(Method, name="ia3"):
    """A vector of factors a target and layer; they can be merged into the backbone's weights."""

    config_class = Ia3Config
    config: Ia3Config

    def __init__(self, config: Ia3Config, sites: Sites) -> None:
        super().__init__(config, sites)
        self.factors = nn.ModuleDict()
        for name in target_sites(config.targets):
            ones = [nn.Parameter(torch.ones(_features(site))) for site in sites.at(name)]
            self.factors[short_name(name)] = nn.ParameterList(ones)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Scale each target's output or input."""
        for site, factors in self._pairs(sites):
            yield site.replace(partial(rescale, factors=factors))

    def fold(self, sites: Sites) -> Iterable[tuple[Site, Fold]]:
        """Scale each target's weight by its columns (factors on the input), or with its bias by its rows."""
        for site, factors in self._pairs(sites):
            yield site, partial(_fold_input if site.is_input else _fold_output, factors)

    def _pairs(self, sites: Sites) -> Iterable[tuple[Site, nn.Parameter]]:
        for name in target_sites(self.config.targets):
            places = (replace(site, is_input=name in SCALED_INPUTS) for site in sites.at(name))
            yield from zip(places, self.factors[short_name(name)], strict=True)  # type: ignore[call-overload]

    @staticmethod
    def count(config: Ia3Config, sites: Sites) -> int:
        """d_out or d_in a target and layer: 2·d_key + d_ff with the default targets."""
        return sum(_features(site) for name in target_sites(config.targets) for site in sites.at(name))


def _features(site: Site) -> int:
    return site.in_features if site.name in SCALED_INPUTS else site.out_features


def _fold_output(
    factors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return factors[:, None] * weight, None if bias is None else factors * bias


def _fold_input(
    factors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return weight * factors, bias

"""SSF (Lian et al. 2022, Scaling and shifting your features): y ← γ ⊙ y + β behind every operation.

After dongzelian/SSF (vision_transformer.py:150-400, 533): behind the patch projection, both norms of a layer, query,
key and value, the attention's output map, both maps of the feed-forward part (the first before its activation), and
the final norm; γ from N(1, 0.02), β from N(0, 0.02). A text's embeddings come from no map, so that there it begins
with the first layer. All of it can be merged: into the maps' weights and biases, and into the norms'.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Site
from peftbench.backbones.sites import LINEAR_SITES, NORM_SITES, Sites
from peftbench.methods.base import Method, check_at_least
from peftbench.methods.folding import Fold
from peftbench.methods.keys import escape

PLACES = ("patches", *NORM_SITES, *LINEAR_SITES, "final.norm")


@dataclass(frozen=True)
class SsfConfig:
    """Settings of SSF.

    Attributes:
        init_std: standard deviation of γ around 1 and of β around 0.
    """

    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_at_least("init_std", self.init_std, 0)


def scale_and_shift(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return γ ⊙ x + β; x: (..., d), scale and shift: (d,); stacked (groups, rows, d) and (groups, d)."""
    return torch.addcmul(shift.to(x.dtype).unsqueeze(-2), x, scale.to(x.dtype).unsqueeze(-2))


def scale_and_shift_maps(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return γ ⊙ x + β of feature maps; x: (batch, d, height, width), scale and shift: (d,)."""
    return scale_and_shift(x.movedim(1, -1), scale, shift).movedim(-1, 1)


class Ssf(Method, name="ssf"):
    """γ and β of each place, in the order of the layers; they can be merged into the backbone's weights."""

    config_class = SsfConfig
    config: SsfConfig

    def __init__(self, config: SsfConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.scales, self.shifts = nn.ModuleDict(), nn.ModuleDict()
        for name, places in _places(sites):
            widths = [_width(site) for site in places]
            self.scales[escape(name)] = _drawn(widths, 1, config.init_std)
            self.shifts[escape(name)] = _drawn(widths, 0, config.init_std)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Scale and shift each place's output."""
        for site, scale, shift in self._places(sites):
            act = scale_and_shift_maps if site.name == "patches" else scale_and_shift
            yield site.replace(partial(act, scale=scale, shift=shift))

    def fold(self, sites: Sites) -> Iterable[tuple[Site, Fold]]:
        """Scale each place's weight by its rows and its bias, and add the shift to that."""
        for site, scale, shift in self._places(sites):
            yield site, partial(_fold, scale, shift)

    def _places(self, sites: Sites) -> Iterator[tuple[Site, nn.Parameter, nn.Parameter]]:
        for name, places in _places(sites):
            yield from zip(places, self.scales[escape(name)], self.shifts[escape(name)], strict=True)  # type: ignore

    @staticmethod
    def count(config: SsfConfig, sites: Sites) -> int:
        """2 for each feature of each place: 2(L(7d + d_ff) + 2d) in a vision transformer of L layers."""
        return sum(2 * _width(site) for _, places in _places(sites) for site in places)


def _places(sites: Sites) -> Iterator[tuple[str, list[Site]]]:
    for name in PLACES:
        if name in sites.names:
            # a norm may be nothing but the identity (ModernBERT's first)
            yield name, [site for site in sites.at(name) if hasattr(site.module, "weight")]


def _drawn(widths: list[int], mean: float, std: float) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(mean + std * torch.randn(width)) for width in widths)


def _width(site: Site) -> int:
    return site.out_features if site.name in LINEAR_SITES else len(site.module.weight)  # type: ignore[arg-type]


def _fold(
    scale: torch.Tensor, shift: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight, (d,) or (d, ...), and bias, (d,), of the operation with what stands behind it."""
    rows = scale.view(-1, *[1] * (weight.dim() - 1))
    return rows * weight, shift if bias is None else scale * bias + shift

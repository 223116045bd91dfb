"""FacT (Jie & Deng 2023, Factor-tuning): one small tensor for the updates of all linear maps of all layers.

Every map is cut into d × d blocks, of which query, key, value and output are one each and the feed-forward part's maps
several; the update of a block is s·V·Σ·U, U (r, d) and V (d, r) the same for all of them. tt (tensor-train): each block
has its own Σ, (r, r). tk (Tucker): a block has r numbers of its own, which mix the r slices of one core, (r, r, r).
After JieShibo/PETL-ViT (fact_tt.py, fact_tk.py): V zero, so that it starts as nothing, U and Σ uniform as linear maps
are (of fan-in 4r where a map takes four blocks), the Tucker core and the blocks' numbers Xavier-uniform; dropout 0.1 on
what V takes, while training. Where d does not divide a map's width the last block is cut.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Site
from peftbench.backbones.sites import LINEAR_SITES, Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method, check_at_least, check_choice, check_dropout, check_scale
from peftbench.methods.folding import Fold

FORMS = ("tt", "tk")


@dataclass(frozen=True)
class FactConfig:
    """Settings of FacT.

    Attributes:
        rank: r, of the factors.
        form: tt (tensor-train) | tk (Tucker).
        scale: s, what every update is multiplied by; the paper chooses it for each task.
        dropout: on what V takes, while training.
    """

    rank: int = 16
    form: str = "tt"
    scale: float = 1.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_at_least("rank", self.rank, 1)
        check_choice("form", self.form, FORMS)
        check_scale(self.scale, "updates")
        check_dropout(self.dropout)


def blocks_of(x: torch.Tensor, width: int) -> torch.Tensor:
    """Return x, (..., n), as blocks of features, (..., blocks, width), the last filled up with zeros."""
    missing = -x.shape[-1] % width
    return F.pad(x, (0, missing)).unflatten(-1, (-1, width))


class Fact(Method, name="fact"):
    """U and V, and the blocks' own tensors; the updates can be merged into the backbone's weights."""

    config_class = FactConfig
    config: FactConfig

    def __init__(self, config: FactConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        rank, hidden = config.rank, sites.hidden
        if rank > hidden:
            raise UserError(f"method.rank={rank} is larger than the model's width {hidden}: choose {hidden} or less")
        self._hidden = hidden
        self.u = nn.Parameter(torch.empty(rank, hidden))
        self.v = nn.Parameter(torch.zeros(hidden, rank))
        nn.init.kaiming_uniform_(self.u, a=math.sqrt(5))
        total = sum(_blocks(site, hidden) for site in _places(sites))
        if config.form == "tt":
            self.middles = nn.Parameter(torch.empty(total, rank, rank))
            for site, blocks in self._pairs(sites):
                bound = 1 / math.sqrt(rank * _columns(site, hidden))  # the blocks beside each other are one linear map
                nn.init.uniform_(self.middles[blocks], -bound, bound)
        else:
            self.core = nn.Parameter(torch.empty(rank, rank, rank))
            self.numbers = nn.Parameter(torch.empty(total, rank))
            nn.init.xavier_uniform_(self.core)
            nn.init.xavier_uniform_(self.numbers)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Add each map's update to its output."""
        for site, blocks in self._pairs(sites):
            yield site.replace_output(partial(self._add, site, blocks))

    def fold(self, sites: Sites) -> Iterable[tuple[Site, Fold]]:
        """Add each map's update to its weight."""
        for site, blocks in self._pairs(sites):
            yield site, partial(self._fold, blocks)

    def _pairs(self, sites: Sites) -> Iterator[tuple[Site, slice]]:
        """Yield each map with the places of its blocks, those of one row of blocks behind each other."""
        start = 0
        for site in _places(sites):
            stop = start + _blocks(site, self._hidden)
            yield site, slice(start, stop)
            start = stop

    def _middles(self, blocks: slice, columns: int) -> torch.Tensor:
        """Return Σ of a map's blocks, (rows, columns, r, r): from what U gives to what V takes."""
        if self.config.form == "tt":
            found = self.middles[blocks]
        else:
            found = torch.einsum("oik,bk->boi", self.core, self.numbers[blocks])
        return found.unflatten(0, (-1, columns))

    def _add(self, site: Site, blocks: slice, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        parts = F.linear(blocks_of(x, self._hidden), self.u)
        middles = self._middles(blocks, parts.shape[-2])
        rows, columns, rank, _ = middles.shape
        inner = F.linear(parts.flatten(-2), middles.transpose(1, 2).reshape(rows * rank, columns * rank))
        # the backbone's mode, not our own
        inner = F.dropout(inner, self.config.dropout, site.module.training)
        update = F.linear(inner.unflatten(-1, (rows, rank)), self.v).flatten(-2)
        return torch.add(output, update[..., : output.shape[-1]], alpha=self.config.scale)

    def _fold(
        self, blocks: slice, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        outputs, inputs = weight.shape
        middles = self._middles(blocks, math.ceil(inputs / self._hidden))
        update = (self.v @ middles @ self.u).transpose(1, 2).flatten(0, 1).flatten(1)
        return weight + self.config.scale * update[:outputs, :inputs], bias

    @staticmethod
    def count(config: FactConfig, sites: Sites) -> int:
        """2dr, and r² a block (tt) or r a block and r³ (tk); 12 blocks a layer where the inner width is 4d."""
        total, rank = sum(_blocks(site, sites.hidden) for site in _places(sites)), config.rank
        return 2 * sites.hidden * rank + (total * rank**2 if config.form == "tt" else total * rank + rank**3)


def _places(sites: Sites) -> Iterator[Site]:
    for name in LINEAR_SITES:
        yield from sites.at(name)


def _blocks(site: Site, width: int) -> int:
    return math.ceil(site.out_features / width) * _columns(site, width)


def _columns(site: Site, width: int) -> int:
    return math.ceil(site.in_features / width)

"""ViT-Adapter's interactions (Chen et al. 2023, §3.3): the ViT's tokens take from the pyramid's, and these from them.

The ViT's tokens lie on one grid, those of the pyramid on three: twice as fine, the same and half as fine.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.feature_maps import as_map
from peftbench.methods.deformable_attention import DeformableAttention, Shape, centres, count_deformable_attention

LEVELS = 3
_EPSILON = 1e-6


@dataclass(frozen=True)
class Grids:
    """The grid of an image's patches, and those of the pyramid's tokens."""

    rows: int
    columns: int

    @cached_property
    def shapes(self) -> list[Shape]:
        """The grids of the pyramid's tokens, the finest first; of an odd side the coarsest has half a cell more."""
        rows, columns = self.rows, self.columns
        return [(2 * rows, 2 * columns), (rows, columns), ((rows + 1) // 2, (columns + 1) // 2)]

    @property
    def shape(self) -> Shape:
        """Of the ViT's tokens."""
        return self.rows, self.columns


@dataclass(frozen=True)
class Sizes:
    """Sizes of injectors and extractors.

    Attributes:
        width: of all tokens. heads, points, ratio: of the deformable attention.
        ffn: inner width of an extractor's feed-forward part.
        drop_path: probability with which that part is left out for an example in training.
    """

    width: int
    heads: int
    points: int
    ratio: float
    ffn: int
    drop_path: float


class Injector(nn.Module):
    """x + γ·attention(LN x to LN c): γ starts at 0, so that the ViT starts as it is."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(sizes.width, _EPSILON)
        self.feature_norm = nn.LayerNorm(sizes.width, _EPSILON)
        self.attention = DeformableAttention(sizes.width, sizes.heads, LEVELS, sizes.points, sizes.ratio)
        self.gamma = nn.Parameter(torch.zeros(sizes.width))

    def forward(self, x: torch.Tensor, c: torch.Tensor, grid: Grids) -> torch.Tensor:
        """Return x, (batch, patches, width), with what it takes from c, (batch, tokens of the pyramid, width)."""
        places = centres([grid.shape], x)
        taken = self.attention(self.query_norm(x), places, self.feature_norm(c), grid.shapes)
        return x + (self.gamma * taken).to(x.dtype)


class Extractor(nn.Module):
    """c + attention(LN c to LN x), then c + FFN(LN c) with a convolution on the grids inside."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.drop_path = sizes.drop_path
        self.query_norm = nn.LayerNorm(sizes.width, _EPSILON)
        self.feature_norm = nn.LayerNorm(sizes.width, _EPSILON)
        self.attention = DeformableAttention(sizes.width, sizes.heads, 1, sizes.points, sizes.ratio)
        self.ffn_norm = nn.LayerNorm(sizes.width, _EPSILON)
        self.ffn = ConvFfn(sizes.width, sizes.ffn)

    def forward(self, c: torch.Tensor, x: torch.Tensor, grid: Grids) -> torch.Tensor:
        """Return c, (batch, tokens of the pyramid, width), with what it takes from x, (batch, patches, width)."""
        places = centres(grid.shapes, c)
        c = c + self.attention(self.query_norm(c), places, self.feature_norm(x), [grid.shape])
        return c + _dropped(self.ffn(self.ffn_norm(c), grid), self.drop_path if self.training else 0)


class ConvFfn(nn.Module):
    """Linear, depth-wise 3 × 3 convolution (one for all three grids), GELU, linear."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.convolution = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.down = nn.Linear(inner, width)

    def forward(self, c: torch.Tensor, grid: Grids) -> torch.Tensor:
        """(batch, tokens of the pyramid, width) → the same shape."""
        maps = as_maps(self.up(c), grid)
        mixed = [self.convolution(each).flatten(2).transpose(1, 2) for each in maps]
        return self.down(F.gelu(torch.cat(mixed, 1)))


def as_maps(c: torch.Tensor, grid: Grids) -> list[torch.Tensor]:
    """Return the pyramid's tokens, (batch, tokens, width), as three maps, (batch, width, rows, columns)."""
    parts = c.split([rows * columns for rows, columns in grid.shapes], 1)
    # as views they would have strides that depend on a map's sides, which torch.compile cannot order
    return [as_map(part, shape).contiguous() for part, shape in zip(parts, grid.shapes, strict=True)]


def _dropped(x: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero whole examples of x, (batch, …), at random and scale the others (stochastic depth, Huang et al. 2016)."""
    if not probability:
        return x
    kept = x.new_empty(x.shape[0], 1, 1).bernoulli_(1 - probability)
    return x * kept / (1 - probability)


class Interaction(nn.Module):
    """What stands before and behind one block of layers."""

    def __init__(self, sizes: Sizes, extractors: int) -> None:
        super().__init__()
        self.injector = Injector(sizes)
        self.extractors = nn.ModuleList(Extractor(sizes) for _ in range(extractors))

    def extract(self, c: torch.Tensor, x: torch.Tensor, grid: Grids) -> torch.Tensor:
        """Return the pyramid's tokens with what each extractor takes from the patches."""
        for extractor in self.extractors:
            c = extractor(c, x, grid)
        return c


def blocks(layers: int, interactions: int) -> list[tuple[int, int]]:
    """Return the first and last layer of each block; where they cannot be alike the first ones are the longer."""
    least, longer = divmod(layers, interactions)
    ends = [(least + 1) * (number + 1) - max(0, number + 1 - longer) for number in range(interactions)]
    return [(start, end - 1) for start, end in zip([0, *ends], ends, strict=False)]


def count_injector(sizes: Sizes) -> int:
    """Two norms, the attention and γ."""
    return 5 * sizes.width + count_deformable_attention(sizes.width, sizes.heads, LEVELS, sizes.points, sizes.ratio)


def count_extractor(sizes: Sizes) -> int:
    """Three norms, the attention and the feed-forward part, (2·width + 11)·ffn + width."""
    ffn = (2 * sizes.width + 11) * sizes.ffn + sizes.width
    attention = count_deformable_attention(sizes.width, sizes.heads, 1, sizes.points, sizes.ratio)
    return 6 * sizes.width + attention + ffn

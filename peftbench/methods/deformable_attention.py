"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, §4.1): a query reads maps at few places.

Where it looks is a learned offset from its own place, how much each place counts a learned weight; keys there are none.
On a CPU the cells that a query reads are summed as they are read; elsewhere transformers' sampling keeps all that is
read before it is summed.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# (height, width) of a map
Shape = tuple[int, int]


class DeformableAttention(nn.Module):
    """One attention of tokens to the tokens of several maps."""

    def __init__(self, width: int, heads: int, levels: int, points: int, ratio: float) -> None:
        """Draw the start: all places count alike, and each head looks in a direction of its own.

        Args:
            width: of all tokens. heads: their number divides ratio·width. levels: number of maps.
            points: places a head looks at in each map. ratio: of the values' width to the tokens'.
        """
        super().__init__()
        self.places = (heads, levels, points)
        self.value = nn.Linear(width, int(ratio * width))
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.output = nn.Linear(int(ratio * width), width)
        for linear in (self.offsets, self.weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(_directions(heads, levels, points).flatten())

    def forward(
        self, queries: torch.Tensor, places: torch.Tensor, features: torch.Tensor, shapes: Sequence[Shape]
    ) -> torch.Tensor:
        """Return what the queries read, (batch, queries, width).

        Args:
            queries: (batch, queries, width).
            places: of the queries, (queries, 2): x and y as fractions of a map's sides.
            features: tokens of all maps one after the other, (batch, tokens, width).
            shapes: of the maps.
        """
        heads, levels, points = self.places
        batch, length = queries.shape[:2]
        # in half precision places would be rounded to several pixels
        exact = torch.promote_types(queries.dtype, torch.float32)
        value = self.value(features).to(exact).unflatten(-1, (heads, -1))
        offsets = self.offsets(queries).to(exact).view(batch, length, heads, levels, points, 2)
        weights = self.weights(queries).to(exact).view(batch, length, heads, levels * points).softmax(-1)
        sides = torch.tensor([(columns, rows) for rows, columns in shapes], dtype=exact, device=queries.device)
        locations = places.to(exact)[:, None, None, None] + offsets / sides[:, None]
        weights = weights.view(batch, length, heads, levels, points)
        read = (read_sums if value.device.type == "cpu" else read_samples)(value, shapes, locations, weights)
        return self.output(read.to(features.dtype))


def read_samples(
    value: torch.Tensor, shapes: Sequence[Shape], locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the weighted sums of what lies at places of maps, (batch, queries, heads · width), beyond them 0.

    Args:
        value: of the cells of all maps, (batch, cells, heads, width). shapes: of the maps.
        locations: (batch, queries, heads, maps, points, 2): x and y as fractions of a map's sides.
        weights: (batch, queries, heads, maps, points).
    """
    # here, for it takes seconds to import and few methods need it
    from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

    read: torch.Tensor = MultiScaleDeformableAttention()(value, None, list(shapes), None, locations, weights, 0)
    return read


def read_sums(
    value: torch.Tensor, shapes: Sequence[Shape], locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return what `read_samples` does: between four cells lies their mean, weighted by how near they are (bilinear)."""
    batch, cells, heads, width = value.shape
    found, shares = [], []
    first = 0
    for level, (rows, columns) in enumerate(shapes):
        x, y = (locations[..., level, :, axis] * side - 0.5 for axis, side in enumerate((columns, rows)))
        left, top = x.floor(), y.floor()
        for column, near_x in ((left, left + 1 - x), (left + 1, x - left)):
            for row, near_y in ((top, top + 1 - y), (top + 1, y - top)):
                inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
                shares.append(weights[..., level, :] * near_x * near_y * inside)
                cell = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
                found.append(first + cell.nan_to_num().long())  # NaN stays in its share
        first += rows * columns
    # (batch, queries, heads, points, corners of all maps), of the cells of one head of one batch
    cell, share = torch.stack(found, -1), torch.stack(shares, -1)
    of_batch = cells * torch.arange(batch, device=cell.device).view(-1, 1, 1, 1, 1)
    cell = (cell + of_batch) * heads + torch.arange(heads, device=cell.device).view(-1, 1, 1)
    table = value.reshape(-1, width)
    bags = F.embedding_bag(
        cell.flatten(0, 2).flatten(1), table, per_sample_weights=share.flatten(0, 2).flatten(1), mode="sum"
    )
    return bags.view(batch, -1, heads * width)


def centres(shapes: Sequence[Shape], like: torch.Tensor) -> torch.Tensor:
    """Return the centres of the cells of maps, (cells of all, 2): x and y as fractions of the map's sides.

    Args:
        shapes: of the maps. like: decides the device; of its type where that has at least float32's precision.
    """
    exact = torch.promote_types(like.dtype, torch.float32)
    found = []
    for rows, columns in shapes:
        y, x = (torch.arange(side, dtype=exact, device=like.device).add(0.5) / side for side in (rows, columns))
        found.append(torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], -1).flatten(0, 1))
    return torch.cat(found)


def count_deformable_attention(width: int, heads: int, levels: int, points: int, ratio: float) -> int:
    """(2·width + 1)·inner + width + 3·(width + 1)·heads·levels·points, inner = ratio·width."""
    inner = int(ratio * width)
    return (2 * width + 1) * inner + width + 3 * (width + 1) * heads * levels * points


def _directions(heads: int, levels: int, points: int) -> torch.Tensor:
    """Return the offsets to start from, (heads, levels, points, 2): 1, 2 … cells away on the sides of a square."""
    angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1, dtype=torch.float32)
    return (directions[:, None, None] * steps[:, None]).expand(heads, levels, points, 2)

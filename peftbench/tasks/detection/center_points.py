"""Objects as points: a heat map a class, and at each centre the box's size and where in its cell the centre lies.

Zhou, Wang & Krähenbühl, Objects as Points (2019), §3 and §4: no anchors, no matching, no suppression of neighbours
other than the peaks of the heat map; sizes are learned as logarithms here, so that small boxes count like large ones.
Two objects of one class whose centres fall into one cell are one.
"""

import math

import torch
from torch.nn import functional as F

from peftbench.backbones.dense_heads import BOX_CHANNELS

# of a label: class (-1: there is none), x and y of the centre, width, height (in shares of the picture), crowd
LABEL_FIELDS = 6
# of a detection: class, score, x and y of the centre, width, height
DETECTION_FIELDS = 6
_ALPHA, _BETA = 2, 4
_LEAST_SCORE = 0.01  # of a detection
_OVERLAP = 0.7  # with its box, that a box moved by the radius still has


def heat_maps(labels: torch.Tensor, classes: int, rows: int, columns: int) -> torch.Tensor:
    """Return the heat maps to learn, (batch, classes, rows, columns): 1 at the centres, a Gaussian around each.

    Args:
        labels: (batch, boxes, 6), see `LABEL_FIELDS`.
    """
    batch, boxes = labels.shape[:2]
    kind, centre, size, single = _split(labels, rows, columns)
    cell = centre.floor()
    spread = (2 * _radius(size) + 1) / 6
    around_x = torch.exp(-((torch.arange(columns, device=labels.device) - cell[..., :1]) ** 2) / (2 * spread**2))
    around_y = torch.exp(-((torch.arange(rows, device=labels.device) - cell[..., 1:]) ** 2) / (2 * spread**2))
    maps = labels.new_zeros(batch, classes, rows, columns)
    bumps = around_y[..., :, None] * around_x[..., None, :] * single[..., None, None]
    place = kind.clamp(min=0)[..., None, None].expand(batch, boxes, rows, columns)
    return maps.scatter_reduce(1, place, bumps.where(bumps > torch.finfo(torch.float32).eps, 0), "amax")


def _split(
    labels: torch.Tensor, rows: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return class (batch, boxes), centre and size in cells (batch, boxes, 2), and which are single objects."""
    cells = labels.new_tensor([columns, rows])
    kind = labels[..., 0].long()
    limit = cells - 1e-3  # a centre on the far edge belongs to the last cell
    centre = torch.minimum(labels[..., 1:3] * cells, limit)
    return kind, centre, labels[..., 3:5] * cells, (kind >= 0) & (labels[..., 5] == 0)


def _radius(size: torch.Tensor) -> torch.Tensor:
    """Return how far, in whole cells, a centre may be off so that the boxes still overlap by `_OVERLAP`, (..., 1).

    The least of the three cases of Law & Deng, CornerNet (2018), §3.2: both corners moved one way, inwards, outwards.
    """
    width, height = size.unbind(-1)
    total, area = width + height, width * height
    t = _OVERLAP
    cases = (
        _smaller_root(1.0, total, area * (1 - t) / (1 + t)),
        _smaller_root(4.0, 2 * total, (1 - t) * area),
        _smaller_root(4 * t, -2 * t * total, (t - 1) * area),
    )
    return torch.stack(cases).amin(0).clamp(min=0).floor()[..., None]


def _smaller_root(a: float, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return the smallest non-negative x with a·x² − b·x + c = 0, for c < 0 the positive one."""
    root = (b**2 - 4 * a * c).clamp(min=0).sqrt()
    smaller = (b - root) / (2 * a)
    return torch.where(c < 0, (b + root) / (2 * a), smaller)


def center_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the focal loss of the heat maps (α = 2, β = 4) and the L1 loss of the boxes, each per object.

    Args:
        outputs: (batch, classes + 4, rows, columns): logits of the heat maps, then the boxes' channels.
        labels: (batch, boxes, 6).
    """
    classes = outputs.shape[1] - BOX_CHANNELS
    rows, columns = outputs.shape[2:]
    outputs, labels = outputs.float(), labels[:, (labels[..., 0] >= 0).any(0)].float()  # not as many as any picture has
    heat, boxes = outputs.split([classes, BOX_CHANNELS], 1)
    wanted = heat_maps(labels, classes, rows, columns)
    _, centre, size, single = _split(labels, rows, columns)
    objects = single.sum().clamp(min=1)
    return (_focal(heat, wanted) + _box_loss(boxes, centre, size, single)) / objects


def _focal(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the sum of the penalty-reduced focal loss, equation 1 of the paper."""
    share, at_centre = logits.sigmoid(), wanted == 1
    positive = F.logsigmoid(logits) * (1 - share) ** _ALPHA
    negative = F.logsigmoid(-logits) * share**_ALPHA * (1 - wanted) ** _BETA
    return -torch.where(at_centre, positive, negative).sum()


def _box_loss(boxes: torch.Tensor, centre: torch.Tensor, size: torch.Tensor, single: torch.Tensor) -> torch.Tensor:
    cell = centre.floor().long()
    columns = boxes.shape[3]
    place = (cell[..., 1] * columns + cell[..., 0]).clamp(min=0)
    found = boxes.flatten(2).gather(2, place[:, None].expand(-1, BOX_CHANNELS, -1)).transpose(1, 2)
    wanted = torch.cat([size.clamp(min=1e-3).log(), centre - centre.floor()], -1)
    return ((found - wanted).abs() * single[..., None]).sum()


def decode(outputs: torch.Tensor, most: int) -> torch.Tensor:
    """Return the `most` highest peaks of each picture's heat maps as boxes, (batch, most, 6), the surest first.

    A peak is a cell that none of its eight neighbours exceeds, with a score of 0.01 or more; where there are fewer,
    rows of score 0 fill up. See `DETECTION_FIELDS`; boxes are cut to the picture.
    """
    classes = outputs.shape[1] - BOX_CHANNELS
    rows, columns = outputs.shape[2:]
    heat, boxes = outputs.float().split([classes, BOX_CHANNELS], 1)
    heat = heat.sigmoid()
    heat = heat * ((F.max_pool2d(heat, 3, 1, 1) == heat) & (heat >= _LEAST_SCORE))
    score, place = heat.flatten(1).topk(min(most, classes * rows * columns))
    cell = place % (rows * columns)
    found = boxes.flatten(2).gather(2, cell[:, None].expand(-1, BOX_CHANNELS, -1))
    cells = outputs.new_tensor([columns, rows])
    corner = torch.stack([cell % columns, cell // columns], -1)
    centre = (corner + found[:, 2:].transpose(1, 2)) / cells
    largest = math.log(4 * max(rows, columns))
    half = found[:, :2].transpose(1, 2).clamp(max=largest).exp() / cells / 2
    low, high = (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)
    kind = (place // (rows * columns)).to(score.dtype)
    return torch.cat([kind[..., None], score[..., None], (low + high) / 2, high - low], -1)

"""Centre points: heat maps, losses, and boxes read from them."""

import math

import pytest
import torch
from torch.nn import functional as F

from peftbench.tasks.detection.center_points import center_loss, decode, heat_maps

# class, x, y, width, height, crowd; the last is none
LABELS = torch.tensor(
    [
        [[0, 0.30, 0.26, 0.20, 0.30, 0], [1, 0.71, 0.60, 0.30, 0.20, 0], [0, 0.9, 0.9, 0.1, 0.1, 1]],
        [[1, 0.55, 0.999, 0.50, 0.002, 0], [-1, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 0, 0]],
    ]
)
ROWS, COLUMNS = 16, 20


def test_heat_maps_have_a_peak_of_one_at_each_object_and_fall_around_it():
    maps = heat_maps(LABELS, 2, ROWS, COLUMNS)
    peaks = (maps == 1).nonzero().tolist()
    assert peaks == [[0, 0, 4, 6], [0, 1, 9, 14], [1, 1, 15, 11]]  # neither the crowd nor what is none
    assert maps[0, 0, 4, 7] < 1e-6  # a box of 4 by 4.8 cells may be off by less than one
    # sigma is a sixth of 2 r + 1, and r = 1 leaves a box of 16 by 16 cells an overlap of 0.7
    large = heat_maps(torch.tensor([[[0, 0.5, 0.5, 0.8, 0.8, 0]]]), 1, 20, 20)
    assert large[0, 0, 10, 11] == pytest.approx(math.exp(-1 / (2 * 0.5**2)))
    assert large[0, 0, 11, 11] == pytest.approx(math.exp(-2 / (2 * 0.5**2)))


def overlap_moved(width, height, by):
    inner = max(0, width - by) * max(0, height - by)
    return inner / (2 * width * height - inner)


def test_the_radius_keeps_the_overlap():
    """Boxes moved along both sides, shrunk or grown by it overlap by 0.7; by one cell more they do not."""
    for width, height in ((40.0, 40.0), (60.0, 25.0), (90.0, 90.0)):
        label = torch.tensor([[[0, 0.5, 0.5, width / 200, height / 200, 0]]])
        maps = heat_maps(label, 1, 200, 200)
        sigma = math.sqrt(-1 / (2 * math.log(maps[0, 0, 100, 101])))
        radius = round((6 * sigma - 1) / 2)

        def least(by, width=width, height=height):
            shrunk = (width - 2 * by) * (height - 2 * by) / (width * height)
            grown = width * height / ((width + 2 * by) * (height + 2 * by))
            return min(overlap_moved(width, height, by), shrunk, grown)

        assert least(radius) >= 0.7 > least(radius + 1)


def test_the_loss_is_that_of_the_paper_written_out():
    outputs = torch.randn(2, 6, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))
    wanted = heat_maps(LABELS, 2, ROWS, COLUMNS)
    p = outputs[:, :2].sigmoid()
    focal = 0.0
    for share, target in zip(p.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        if target == 1:
            focal -= (1 - share) ** 2 * math.log(share)
        else:
            focal -= (1 - target) ** 4 * share**2 * math.log(1 - share)
    boxes = 0.0
    for example, (row, column), size, offset in (
        (0, (4, 6), (4.0, 4.8), (0.0, 0.16)),
        (0, (9, 14), (6.0, 3.2), (0.2, 0.6)),
        (1, (15, 11), (10.0, 0.032), (0.0, 0.984)),
    ):
        target = torch.tensor([math.log(size[0]), math.log(size[1]), *offset])
        boxes += (outputs[example, 2:, row, column] - target).abs().sum().item()
    assert center_loss(outputs, LABELS).item() == pytest.approx((focal + boxes) / 3, rel=1e-4)


def test_a_batch_without_objects_has_a_finite_loss_and_gradient():
    outputs = torch.randn(1, 6, 4, 4, requires_grad=True)
    loss = center_loss(outputs, torch.full((1, 2, 6), -1.0))
    loss.backward()
    assert loss.isfinite() and outputs.grad.isfinite().all() and not outputs.grad[:, 2:].any()


def test_what_is_learned_is_read_back_as_the_boxes():
    outputs = torch.zeros(2, 6, ROWS, COLUMNS)
    outputs[:, :2] = torch.logit(heat_maps(LABELS, 2, ROWS, COLUMNS).clamp(1e-4, 0.99))
    for example, row, column, box in ((0, 4, 6, 0), (0, 9, 14, 1), (1, 15, 11, 0)):
        _, x, y, width, height, _ = LABELS[example, box].tolist()
        values = [math.log(width * COLUMNS), math.log(height * ROWS), x * COLUMNS - column, y * ROWS - row]
        outputs[example, 2:, row, column] = torch.tensor(values)
    found = decode(outputs, 5)
    assert found.shape == (2, 5, 6)
    kinds = sorted(found[0, :2].tolist())
    for (kind, score, *box), wanted in zip(kinds, LABELS[0, :2].tolist(), strict=True):
        assert kind == wanted[0] and score == pytest.approx(0.99) and box == pytest.approx(wanted[1:5], abs=1e-5)
    assert found[0, 2:, 1].max() == 0 == found[1, 1:, 1].max()  # neighbours of a peak are none


def test_a_peak_is_where_no_neighbour_is_higher():
    heat = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(1))
    found = decode(torch.cat([heat, torch.zeros(1, 4, 9, 9)], 1), 81)
    padded = F.pad(heat[0, 0], (1, 1, 1, 1), value=-99)
    peaks = sum(bool(heat[0, 0, r, c] >= padded[r : r + 3, c : c + 3].max()) for r in range(9) for c in range(9))
    assert (found[0, :, 1] > 0).sum() == peaks
    assert (found[..., 2:4] - found[..., 4:] / 2 >= -1e-6).all() and (
        found[..., 2:4] + found[..., 4:] / 2 <= 1.00001
    ).all()

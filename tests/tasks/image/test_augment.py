"""Flips and crops: the same for pixels, masks and boxes, and for the same seed, epoch and picture."""

import numpy as np
import pytest
import torch

from peftbench.tasks.image.augment import View, draw_view, view_boxes, view_mask, view_pixels

VIEWS = [draw_view(True, 0.4, 3, epoch, index).in_pixels(90, 120) for epoch in range(4) for index in range(10)]


def drawn(boxes, rows=90, columns=120):
    """Return a mask with a number for each box, (left, top, width, height) in pixels, and the boxes in shares."""
    mask = torch.zeros(rows, columns, dtype=torch.uint8)
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        mask[y : y + height, x : x + width] = number
    size = np.array([columns, rows, columns, rows])
    shares = [np.array([x + w / 2, y + h / 2, w, h]) / size for x, y, w, h in boxes]
    return mask, torch.tensor(np.array(shares), dtype=torch.float32)


@pytest.mark.parametrize("view", [View(), View(flipped=True), *VIEWS])
def test_boxes_lie_where_the_mask_has_them(view):
    mask, boxes = drawn([(10, 8, 30, 24), (70, 40, 36, 44), (50, 4, 16, 20)])
    seen_mask = view_mask(mask, view)
    assert seen_mask.shape == mask.shape and set(seen_mask.unique().tolist()) <= {0, 1, 2, 3}
    seen_boxes, seen = view_boxes(boxes, view)
    for number, (x, y, width, height) in enumerate(seen_boxes.tolist(), start=1):
        rows, columns = (seen_mask == number).nonzero(as_tuple=True)
        if not seen[number - 1]:
            continue
        assert columns.min() / 120 == pytest.approx(x - width / 2, abs=0.02)
        assert (columns.max() + 1) / 120 == pytest.approx(x + width / 2, abs=0.02)
        assert rows.min() / 90 == pytest.approx(y - height / 2, abs=0.02)
        assert (rows.max() + 1) / 90 == pytest.approx(y + height / 2, abs=0.02)


@pytest.mark.parametrize("left", [0.0, 0.0123, 0.111, 0.21, 0.29])
def test_pixels_and_boxes_are_cut_at_the_same_place(left):
    view = View(0.0, left, 1.0, 0.7).in_pixels(56, 56)
    mask, boxes = drawn([(20, 20, 10, 10)], 56, 56)
    pixels = view_pixels((200 * mask)[None], view)[0].float()
    box, _ = view_boxes(boxes, view)
    centre = (pixels.sum(0) * (torch.arange(56) + 0.5)).sum() / pixels.sum() / 56
    assert centre.item() == pytest.approx(box[0, 0].item(), abs=0.1 / 56)


def test_a_mask_of_other_pixels_is_cut_at_the_same_place():
    fine, boxes = drawn([(20, 20, 10, 10)], 60, 60)
    coarse = fine[::3, ::3]
    view = View(0.1, 0.1, 0.65, 0.65).in_pixels(56, 56)
    centres = [((view_mask(mask, view) == 1).nonzero() + 0.5).float().mean(0) / len(mask) for mask in (fine, coarse)]
    assert torch.allclose(centres[0], view_boxes(boxes, view)[0][0, [1, 0]], atol=0.01)
    assert torch.allclose(*centres, atol=0.5 / 20)


@pytest.mark.parametrize("view", VIEWS[:8])
def test_pixels_move_with_the_mask(view):
    mask, _ = drawn([(10, 8, 30, 24), (70, 40, 36, 44)])
    pixels = (120 * mask)[None].expand(3, -1, -1).contiguous()
    found, expected = view_pixels(pixels, view), 120 * view_mask(mask, view)
    assert found.shape == pixels.shape and found.dtype == torch.uint8
    assert (found[0].int() - expected.int()).abs().float().mean() < 3  # edges alone are mixed


def test_a_view_is_of_its_seed_epoch_and_picture():
    assert draw_view(True, 0.5, 1, 2, 3) == draw_view(True, 0.5, 1, 2, 3)
    others = [draw_view(True, 0.5, *numbers) for numbers in ((1, 2, 4), (1, 3, 3), (2, 2, 3))]
    assert draw_view(True, 0.5, 1, 2, 3) not in others
    assert {view.flipped for view in VIEWS} == {True, False}
    assert all(0.39 <= view.height * view.width <= 1 and view.top + view.height <= 1.0001 for view in VIEWS)
    assert draw_view(False, 1.0, 1, 2, 3) == View()


def test_a_box_of_which_little_is_seen_is_none():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
    _, seen = view_boxes(boxes, View(top=0.4, left=0.4, height=0.6, width=0.6))
    assert seen.tolist() == [True, False]
    half, seen = view_boxes(boxes, View(top=0.0, left=0.5, height=0.5, width=0.5))
    assert seen.tolist() == [False, False]  # a quarter of the first
    assert half.min() >= 0

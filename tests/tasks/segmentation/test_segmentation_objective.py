"""Segmentation: the loss leaves void pixels out, scores are over all pixels of a split."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from peftbench.errors import UserError
from peftbench.tasks.segmentation.confusion import VOID, pixel_confusions, segmentation_score
from peftbench.tasks.segmentation.objective import Segmentation

CLASSES = ("a", "b", "c")


@pytest.fixture
def masks():
    masks = torch.randint(3, (20, 6, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    masks[0, 0] = VOID
    masks[3] = VOID
    return masks


def answers(masks, generator):
    logits = torch.randn(len(masks), 3, 3, 4, generator=torch.Generator().manual_seed(generator))
    return Segmentation(CLASSES, (6, 8)), logits


def test_the_loss_is_the_mean_over_pixels_with_a_class(masks):
    objective, logits = answers(masks, 1)
    scaled = F.interpolate(logits, (6, 8), mode="bilinear")
    kept = masks != VOID
    expected = -scaled.log_softmax(1).gather(1, masks.long().clamp(max=2)[:, None])[:, 0][kept].mean()
    found = objective.loss(SimpleNamespace(logits=logits), {"labels": masks})
    torch.testing.assert_close(found, expected)
    assert objective.score(["miou"], logits, masks)["loss"] == pytest.approx(expected.item(), rel=1e-5)
    nothing = objective.loss(SimpleNamespace(logits=logits[:1]), {"labels": torch.full((1, 6, 8), VOID)})
    assert nothing == 0


def test_a_score_scales_each_picture_up_once(masks, monkeypatch):
    objective, logits = answers(masks, 3)
    scaled, before = [], F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda x, *more, **named: scaled.append(len(x)) or before(x, *more, **named))
    objective.score(["miou"], logits, masks)
    assert sum(scaled) == len(masks)


def test_scores_are_those_of_all_pixels_together(masks):
    objective, logits = answers(masks, 2)
    predicted = F.interpolate(logits, (6, 8), mode="bilinear").argmax(1)
    kept = masks != VOID
    ious = [
        ((predicted == c) & (masks == c))[kept].sum().item() / ((predicted == c) | (masks == c))[kept].sum().item()
        for c in range(3)
    ]
    scores = objective.score(["miou", "pixel_accuracy"], logits, masks)
    assert scores["miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx((predicted == masks)[kept].double().mean().item(), abs=1e-12)
    by_class = objective.by_class(objective.read_out(logits)[0], masks.numpy())
    assert by_class["iou"] == pytest.approx(ious) and np.sum(by_class["confusion"]) == kept.sum()


def test_a_class_that_occurs_nowhere_is_left_out():
    masks = np.zeros((1, 2, 2), np.uint8)
    predicted = np.array([[[0, 0], [0, 1]]], np.uint8)
    confusion = pixel_confusions(predicted, masks, 3).sum(0)
    assert segmentation_score("miou", confusion) == pytest.approx((0.75 + 0) / 2)
    assert segmentation_score("miou", np.zeros((3, 3))) == 0


def test_metrics_that_do_not_judge_masks_are_refused(masks):
    objective, logits = answers(masks, 1)
    with pytest.raises(UserError, match="'accuracy' does not judge masks"):
        objective.score(["accuracy"], logits, masks)

"""Average precision: as pycocotools itself accumulates it, and of draws as of pictures taken so often."""

import contextlib
import io
import tracemalloc

import numpy as np
import pytest

from peftbench.errors import UserError
from peftbench.tasks.detection.average_precision import (
    PICTURE,
    Matches,
    average_precision,
    check_metrics,
    cut_to_picture,
    detection_score,
    match,
)

pytest.importorskip("pycocotools", reason="the vision extra is not installed")

PICTURES, CLASSES = 12, 3


def drawn(seed):
    """Return labels with a crowd among them and detections near them, among false ones."""
    random = np.random.default_rng(seed)
    labels = np.full((PICTURES, 6, 6), -1.0)
    found = np.zeros((PICTURES, 20, 6))
    for picture in range(PICTURES):
        count = random.integers(0, 6)
        labels[picture, :count, 0] = random.integers(0, CLASSES - (picture == 0), count)
        labels[picture, :count, 1:3] = random.uniform(0.3, 0.7, (count, 2))
        labels[picture, :count, 3:5] = random.uniform(0.1, 0.5, (count, 2))
        labels[picture, :count, 5] = random.random(count) < 0.2
        near = labels[picture, :count, :5] + np.c_[np.zeros(count), random.normal(0, 0.02, (count, 4))]
        found[picture, :count] = np.c_[near[:, :1], random.uniform(0.2, 1, count), near[:, 1:]]
        others = np.c_[random.integers(0, CLASSES, 8), random.uniform(0.05, 0.8, 8), random.uniform(0.2, 0.6, (8, 4))]
        found[picture, count : count + 8] = others
    return labels, found


def by_pycocotools(labels, found):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def corner(box):
        return [box[0] - box[2] / 2, box[1] - box[3] / 2, box[2], box[3]]

    annotations = [
        {"image_id": i, "category_id": int(b[0]), "bbox": corner(b[1:5]), "area": b[3] * b[4], "iscrowd": int(b[5])}
        for i, boxes in enumerate(labels)
        for b in boxes
        if b[0] >= 0
    ]
    for number, entry in enumerate(annotations):
        entry["id"] = number + 1
    results = [
        {"image_id": i, "category_id": int(b[0]), "bbox": corner(b[2:]), "score": b[1]}
        for i, boxes in enumerate(found)
        for b in boxes
        if b[1] > 0
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(labels))],
            "categories": [{"id": c} for c in range(CLASSES)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("ap", "ap50", "ap75"), evaluation.stats, strict=False))


@pytest.mark.parametrize("seed", range(4))
def test_the_scores_are_pycocotools(seed):
    labels, found = drawn(seed)
    precision = average_precision(match(labels, found, CLASSES))
    for metric, expected in by_pycocotools(labels, found).items():
        assert detection_score(metric, precision)[0] == pytest.approx(expected, abs=1e-9)


def test_a_draw_is_scored_as_pictures_taken_so_often():
    labels, found = drawn(7)
    found[..., 1] += np.arange(PICTURES)[:, None] * 1e-6 * (found[..., 1] > 0)  # no ties
    random = np.random.default_rng(0)
    draws = random.multinomial(PICTURES, np.full(PICTURES, 1 / PICTURES), size=5)
    precision = average_precision(match(labels, found, CLASSES), draws)
    for number, draw in enumerate(draws):
        taken = np.repeat(np.arange(PICTURES), draw)
        for metric, expected in by_pycocotools(labels[taken], found[taken]).items():
            assert detection_score(metric, precision)[number] == pytest.approx(expected, abs=1e-9)


def test_many_pictures_take_memory_by_their_detections_alone():
    pictures, detections = 1000, 20_000
    random = np.random.default_rng(0)
    matched = random.random((10, detections)) < 0.05
    matches = Matches(random.integers(0, pictures, detections), matched, np.ones_like(matched), np.full(pictures, 2))
    tracemalloc.start()
    try:
        average_precision([matches], random.multinomial(pictures, np.full(pictures, 1 / pictures), size=128))
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_what_lies_in_a_picture_s_padding_is_no_detection():
    labels = np.array([[[0, 0.5, 0.3, 0.4, 0.4, 0], [PICTURE, 0.5, 0.25, 1, 0.5, 0]]])
    found = np.array([[[0, 0.9, 0.5, 0.8, 0.4, 0.2], [0, 0.5, 0.5, 0.35, 0.4, 0.5]]])
    (matches,) = match(labels, found, 1)
    assert average_precision([matches])[0, 0].max() == 1 and len(matches.example) == 1
    cut = cut_to_picture(labels, found)
    np.testing.assert_allclose(cut[0, 1], [0, 0.5, 0.5, 0.3, 0.4, 0.4])  # its lower edge is the picture's
    assert cut[0, 0, 1] == 0
    assert np.array_equal(cut_to_picture(labels[:, :1], found), found)


def test_without_detections_or_objects_the_score_is_zero():
    labels, found = drawn(1)
    nothing = average_precision(match(labels, np.zeros_like(found), CLASSES))
    assert detection_score("ap", nothing)[0] == 0
    empty = average_precision(match(np.full_like(labels, -1), found, CLASSES))
    assert np.isnan(empty).all() and detection_score("ap", empty)[0] == 0


def test_metrics_that_do_not_judge_boxes_are_refused():
    with pytest.raises(UserError, match=r"'map' does not judge boxes.*ap"):
        check_metrics(["map"])


def test_without_pycocotools_it_is_said_before_training(monkeypatch):
    monkeypatch.setattr("peftbench.tasks.detection.average_precision.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'peftbench\[vision\]'"):
        check_metrics(["ap"])

"""Scores of masks and boxes on draws: those of the pictures that a draw takes, as often as it takes them."""

import numpy as np
import pytest

from peftbench.runs.predictions import Predictions, read_predictions, write_predictions
from peftbench.tables import bootstrap, dense_draws
from peftbench.tables.bootstrap import resamples
from peftbench.tables.dense_draws import box_draws, pixel_draws
from peftbench.tables.scored import RowScores
from peftbench.tables.simultaneous import Joint
from peftbench.tasks.detection.average_precision import average_precision, detection_score, match
from peftbench.tasks.segmentation.confusion import VOID, pixel_confusions, segmentation_score

PICTURES = 9


@pytest.fixture
def few(monkeypatch):
    """200 draws are enough."""
    drawn = resamples(PICTURES)[:200]
    monkeypatch.setattr(bootstrap, "resamples", lambda *_: drawn)
    monkeypatch.setattr(dense_draws, "resamples", lambda *_: drawn)
    return drawn


def masks(seed):
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, 3, (PICTURES, 8, 8)).astype(np.uint8)
    truth[:, 0] = VOID
    guessed = np.where(random.random(truth.shape) < 0.7, truth % 3, random.integers(0, 3, truth.shape))
    return truth, guessed.astype(np.uint8)


def boxes(seed):
    truth = np.full((PICTURES, 4, 6), -1.0, np.float32)
    random = np.random.default_rng(0)
    for picture in range(1, PICTURES):
        count = random.integers(1, 5)
        truth[picture, :count] = np.c_[
            random.integers(0, 2, count),
            random.uniform(0.3, 0.7, (count, 2)),
            random.uniform(0.1, 0.4, (count, 2)),
            [0] * count,
        ]
    random = np.random.default_rng(seed)
    found = np.zeros((PICTURES, 6, 6), np.float32)
    for picture in range(PICTURES):
        near = truth[picture][truth[picture, :, 0] >= 0]
        found[picture, : len(near)] = np.c_[
            near[:, 0], random.random(len(near)), near[:, 1:5] + random.normal(0, 0.01, (len(near), 4))
        ]
        found[picture, len(near)] = [random.integers(0, 2), random.random(), 0.5, 0.5, 0.3, 0.3]
    return truth, found


def test_draws_of_masks(few):
    pairs = [masks(seed) for seed in (1, 2)]
    confusions = np.stack([pixel_confusions(guessed, truth, 3) for truth, guessed in pairs])
    scores = pixel_draws(confusions)
    for number in (0, 1, 57):
        taken = np.repeat(np.arange(PICTURES), few[number])
        for seed, (truth, guessed) in enumerate(pairs):
            confusion = pixel_confusions(guessed[taken], truth[taken], 3).sum(0)
            for metric, found in scores.items():
                assert found[number, seed] == pytest.approx(segmentation_score(metric, confusion), abs=1e-12)


def test_draws_of_boxes(few):
    pytest.importorskip("pycocotools", reason="the vision extra is not installed")
    truth, first = boxes(1)
    _, second = boxes(2)
    scores = box_draws(truth, [first, second])
    for number in (0, 1, 57):
        taken = np.repeat(np.arange(PICTURES), few[number])
        for seed, found in enumerate((first, second)):
            precision = average_precision(match(truth[taken], found[taken], 2))
            for metric, drawn in scores.items():
                # of a picture that is taken twice the detections tie, and pycocotools orders ties by picture
                assert drawn[number, seed] == pytest.approx(
                    detection_score(metric, precision)[0], abs=0.02 * (number > 0) + 1e-9
                )


@pytest.mark.parametrize("form", ["pixels", "boxes"])
def test_what_is_written_is_read_back_and_compared(form, few, tmp_path):
    pytest.importorskip("pycocotools", reason="the vision extra is not installed")
    make, classes = {"pixels": (masks, ["a", "b", "c"]), "boxes": (boxes, ["bar", "square"])}[form]
    rows = []
    for better in (1, 2):
        stored = {}
        for seed in (better, better + 10):
            truth, guessed = make(seed)
            path = tmp_path / f"{seed}.csv"
            write_predictions(path, {"validation": Predictions(truth, guessed, form=form)}, classes)
            read = read_predictions(path)["validation"]
            assert read.form == form and len(read.predictions) == PICTURES
            stored[seed % 10 - better] = stored[seed] = read
        rows.append(RowScores({0: stored[better], 1: stored[better + 10]}))
    metric = {"pixels": "miou", "boxes": "ap"}[form]
    interval = rows[0].score(metric, Joint(0.95, {}))
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 100
    difference = rows[0].difference(metric, rows[1], Joint(0.95, {}))
    both = [row.score(metric, Joint(0.95, {})).estimate for row in rows]
    assert difference.estimate == pytest.approx(both[0] - both[1])
    if form == "boxes":
        truth, guessed = make(1)
        again = read_predictions(tmp_path / "1.csv")["validation"]
        for ours, theirs in ((again.labels, truth), (again.predictions, guessed)):
            assert np.array_equal(ours[ours[..., 1] != -1][:, 1:], ours[ours[..., 1] != -1][:, 1:])
            assert np.isclose(
                np.sort(ours[..., 3][ours[..., 4] > 0]), np.sort(theirs[..., 3][theirs[..., 4] > 0])
            ).all()


def test_rare_classes_that_draws_miss_move_no_interval(monkeypatch):
    drawn = resamples(PICTURES)[:2001]
    monkeypatch.setattr(dense_draws, "resamples", lambda *_: drawn)
    rows = {}
    # three common classes, and one of each picture, which is missed
    for row, right in (("a", 700), ("b", 600)):
        confusions = np.zeros((3, PICTURES, 3 + PICTURES, 3 + PICTURES))
        for picture in range(PICTURES):
            confusions[:, picture, picture % 3, picture % 3] = right + 10 * np.arange(3)
            confusions[:, picture, picture % 3, (picture + 1) % 3] = 800 - right
            confusions[:, picture, 3 + picture, 0] = 50
        pixels = confusions[0].sum(axis=2)
        rows[row] = RowScores(
            {seed: Predictions(pixels, of_seed, form="pixels") for seed, of_seed in enumerate(confusions)}, label=row
        )
    joint = Joint(0.95, {})
    raw = pixel_draws(np.stack(rows["a"].predictions))["miou"]
    assert np.quantile(raw[1:].mean(axis=1), 0.05) > raw[0].mean(), "the draws are off, or nothing is tested"
    for row in rows.values():
        score = row.score("miou", joint)
        assert score.low < score.estimate < score.high
    assert rows["a"].draws("miou")[1:].mean() == pytest.approx(rows["a"].draws("miou")[0].mean(), abs=2e-3)
    difference = rows["a"].difference("miou", rows["b"], joint)
    assert difference.low < difference.estimate < difference.high

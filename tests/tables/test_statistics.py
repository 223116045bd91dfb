"""Bootstrap intervals: against a case worked by hand, against scipy, and against the plain metrics."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from peftbench.tables import statistics
from peftbench.tables.statistics import difference_interval, ratio_interval, score_interval
from peftbench.tasks.metrics import score


@pytest.fixture
def data():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 200)
    ours, theirs = (np.where(generator.random((3, 200)) < rate, 1 - labels, labels) for rate in (0.2, 0.3))
    return labels, ours, theirs


def by_hand(labels, ours, theirs):
    """Every draw of one seed less than there are, and of examples, each as likely as any other."""
    seeds, examples = ours.shape
    correct = (ours == labels).astype(float) - (theirs == labels)
    draws = [
        correct[np.ix_(chosen, picked)].mean()
        for chosen in product(range(seeds), repeat=seeds - 1)
        for picked in product(range(examples), repeat=examples)
    ]
    return np.array(draws)


def test_a_case_worked_by_hand():
    # 2 seeds × 4 examples: ours is right where theirs is wrong on examples 0 (both seeds) and 1 (seed 0)
    labels = np.array([1, 0, 1, 1])
    ours = np.array([[1, 0, 1, 0], [1, 1, 1, 0]])
    theirs = np.array([[0, 1, 1, 0], [0, 1, 1, 0]])
    interval = difference_interval("accuracy", labels, ours, theirs, confidence=0.9)
    assert interval.estimate == pytest.approx((2 + 1) / 8)
    draws = by_hand(labels, ours, theirs)
    assert draws.size == 2 * 4**4
    assert interval.low == pytest.approx(np.quantile(draws, 0.05), abs=1e-9)
    assert interval.high == pytest.approx(np.quantile(draws, 0.95), abs=1e-9)
    assert interval.low <= 0 < interval.high  # so few examples tell nothing


def twice(predictions):
    """Two seeds that say the same: only the examples are left to vary."""
    return np.stack([predictions, predictions])


def test_over_examples_it_agrees_with_scipy(data):
    labels, ours, theirs = data
    interval = difference_interval("accuracy", labels, twice(ours[0]), twice(theirs[0]))
    expected = stats.bootstrap(
        ((ours[0] == labels).astype(float), (theirs[0] == labels).astype(float)),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert interval.low == pytest.approx(expected.low, abs=0.01)
    assert interval.high == pytest.approx(expected.high, abs=0.01)


def test_spearman_agrees_with_scipy():
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 6, 80).astype(float)  # ties
    predictions = (labels + generator.normal(0, 2, 80)).round(1)
    interval = score_interval("spearman", labels, twice(predictions))
    expected = stats.bootstrap(
        (labels, predictions),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert interval.estimate == pytest.approx(stats.spearmanr(labels, predictions).statistic)
    assert interval.low == pytest.approx(expected.low, abs=0.03)
    assert interval.high == pytest.approx(expected.high, abs=0.03)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews", "pearson", "spearman"])
@pytest.mark.parametrize("classes", [2, 4])
def test_each_draw_scores_as_the_metric_does_on_the_repeated_examples(metric, classes):
    generator = np.random.default_rng(7)
    labels, predictions = generator.integers(0, classes, (2, 40))
    counts = generator.multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    scores = statistics._scorer(metric, classes)(labels, predictions, counts)
    for drawn, found in zip(counts.astype(int), scores, strict=True):
        repeated = score([metric], np.repeat(predictions, drawn), np.repeat(labels, drawn), classes)
        assert found == pytest.approx(repeated[metric])


def test_pairing_narrows_the_interval(data):
    labels, ours, _ = data
    nearly_the_same = ours.copy()
    nearly_the_same[:, :2] = 1 - labels[:2]
    paired = difference_interval("accuracy", labels, ours, nearly_the_same)
    alone = score_interval("accuracy", labels, ours)
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_more_confidence_is_wider_and_the_same_is_no_difference(data):
    labels, ours, theirs = data
    narrow = difference_interval("f1", labels, ours, theirs)
    wide = difference_interval("f1", labels, ours, theirs, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert difference_interval("f1", labels, ours, ours) == (0, 0, 0)


def test_ratio(data):
    labels, ours, theirs = data
    interval = ratio_interval("accuracy", labels, ours, theirs)
    assert interval.estimate == pytest.approx((ours == labels).mean() / (theirs == labels).mean())
    assert interval.low < interval.estimate < interval.high
    assert ratio_interval("accuracy", labels, ours, 1 - np.broadcast_to(labels, ours.shape)) is None


def test_what_cannot_be_paired_is_refused(data):
    labels, ours, theirs = data
    with pytest.raises(ValueError, match="not of one kind"):
        difference_interval("accuracy", labels, ours, theirs[:2])


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(11)
    inside = 0
    for _ in range(60):
        labels = np.ones(150, dtype=int)
        ours, theirs = ((generator.random(150) < rate).astype(int) for rate in (0.8, 0.7))
        interval = difference_interval("accuracy", labels, twice(ours), twice(theirs))
        inside += interval.low <= 0.1 <= interval.high
    assert 51 <= inside <= 60


def test_one_seed_has_no_interval(data):
    labels, ours, theirs = data
    interval = difference_interval("accuracy", labels, ours[:1], theirs[:1])
    assert interval == ((ours[0] == labels).mean() - (theirs[0] == labels).mean(), None, None)
    assert not interval.excludes(0)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_runs_that_vary_are_seldom_told_apart_by_luck(seeds):
    """Two equally good methods whose runs end 3 points apart: few seeds must not look like certainty."""
    generator = np.random.default_rng(13)
    labels = np.ones(400, dtype=int)
    told = 0
    for _ in range(50):
        rates = 0.8 + generator.normal(0, 0.03, (2, seeds, 1))
        ours, theirs = (generator.random((2, seeds, 400)) < rates).astype(int)
        told += difference_interval("accuracy", labels, ours, theirs).excludes(0)
    assert told <= 8


def test_the_spread_of_means_over_seeds_is_not_underestimated():
    """Of runs that differ from seed to seed alone, the draws vary as s²/seeds."""
    generator = np.random.default_rng(17)
    rates = generator.random(4)
    predictions = (np.linspace(0, 1, 2000) < rates[:, None]).astype(int)
    (draws,) = statistics._draws("accuracy", np.ones(2000, dtype=int), [predictions], 2)
    assert draws[1:].std() == pytest.approx(rates.std(ddof=1) / 2, rel=0.03)

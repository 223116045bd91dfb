"""Bootstrap intervals: against a case worked by hand, against scipy, and against the plain metrics."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from peftbench.tables import bootstrap, statistics
from peftbench.tables.bootstrap import resamples, score_draws
from peftbench.tasks.metrics import score


def score_interval(metric, labels, predictions, confidence=0.95):
    return statistics.score_interval(score_draws(metric, labels, predictions), confidence)


def difference_interval(metric, labels, ours, theirs, confidence=0.95):
    draws = [score_draws(metric, labels, predictions) for predictions in (ours, theirs)]
    return statistics.difference_interval(*draws, confidence)


def ratio_interval(metric, labels, ours, theirs, confidence=0.95):
    draws = [score_draws(metric, labels, predictions) for predictions in (ours, theirs)]
    return statistics.ratio_interval(*draws, confidence)


@pytest.fixture
def data():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 200)
    ours, theirs = (np.where(generator.random((3, 200)) < rate, 1 - labels, labels) for rate in (0.2, 0.3))
    return labels, ours, theirs


def twice(predictions):
    """Two seeds that say the same: only the examples are left to vary."""
    return np.stack([predictions, predictions])


def test_the_examples_part_worked_by_hand():
    # 4 examples: ours is right where theirs is wrong on example 0 and 1
    labels = np.array([1, 0, 1, 1])
    ours, theirs = np.array([1, 0, 1, 0]), np.array([0, 1, 1, 0])
    interval = difference_interval("accuracy", labels, twice(ours), twice(theirs), confidence=0.9)
    assert interval.estimate == pytest.approx(2 / 4)
    correct = (ours == labels).astype(float) - (theirs == labels)
    draws = np.array([correct[list(picked)].mean() for picked in product(range(4), repeat=4)])
    assert interval.low == pytest.approx(np.quantile(draws, 0.05), abs=1e-9)
    assert interval.high == pytest.approx(np.quantile(draws, 0.95), abs=1e-9)
    assert interval.low <= 0 < interval.high  # so few examples tell nothing


def all_right(*seeds):
    """Seeds that get every example right or every one wrong: only the seeds are left to vary."""
    return np.array([[right] * 50 for right in seeds])


def test_the_seeds_part_is_student_s_t():
    labels, scores = np.ones(50, dtype=int), (1, 0, 1, 1, 1)
    interval = score_interval("accuracy", labels, all_right(*scores), confidence=0.9)
    expected = stats.t(4).ppf(0.95) * np.std(scores, ddof=1) / np.sqrt(5)
    assert interval.high - interval.estimate == pytest.approx(expected, rel=1e-3)
    assert interval.high > 1, "few seeds do not say how far others may be"
    against_none = difference_interval("accuracy", labels, all_right(*scores), all_right(0, 0, 0, 0, 0), 0.9)
    assert against_none.high - against_none.estimate == pytest.approx(expected, rel=1e-3)
    same = difference_interval("accuracy", labels, all_right(*scores), all_right(*scores), 0.9)
    freedom = (8 + 3 * 4) / 4  # Welch's for two equal variances, and that of one row
    assert same.high == pytest.approx(stats.t(freedom).ppf(0.95) * np.std(scores, ddof=1) * np.sqrt(2 / 5), rel=1e-3)


def test_what_single_runs_vary_by_counts_once():
    """Runs that err on examples of their own say as much as one with as many examples as all of them have."""
    generator = np.random.default_rng(19)
    labels, predictions = np.ones(1000, dtype=int), (generator.random((20, 1000)) < 0.8).astype(int)
    interval = score_interval("accuracy", labels, predictions)
    once = stats.t(19).ppf(0.975) * np.sqrt(0.16 / 20_000)
    assert interval.high - interval.low == pytest.approx(2 * once, rel=0.25)
    assert interval.high - interval.low < 2 * 1.3 * once, "counted twice it would be 1.4 times as wide"


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


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"])
@pytest.mark.parametrize("classes", [1, 2, 4, 300])  # of 300 a confusion matrix for each example takes 60 GiB
def test_each_draw_scores_as_the_metric_does_on_the_repeated_examples(metric, classes):
    generator = np.random.default_rng(7)
    labels, *predictions = generator.integers(0, classes, (20, 40))  # of more seeds than are counted at once
    counts = generator.multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    scores = bootstrap._scorer(metric, classes)(labels, np.array(predictions), counts)
    for drawn, of_seeds in zip(counts.astype(int), scores, strict=True):
        for of_seed, found in zip(predictions, of_seeds, strict=True):
            repeated = score([metric], np.repeat(of_seed, drawn), np.repeat(labels, drawn), classes)
            assert found == pytest.approx(repeated[metric])


def test_pairing_narrows_the_interval(data):
    labels, ours = data[0], twice(data[1][0])
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
    same = difference_interval("f1", labels, twice(ours[0]), twice(ours[0]))
    assert same == (0, 0, 0) and not difference_interval("f1", labels, ours, ours).excludes(0)


def test_ratio(data):
    labels, ours, theirs = data
    interval = ratio_interval("accuracy", labels, ours, theirs)
    assert interval.estimate == pytest.approx((ours == labels).mean() / (theirs == labels).mean())
    assert interval.low < interval.estimate < interval.high
    assert ratio_interval("accuracy", labels, ours, 1 - np.broadcast_to(labels, ours.shape)) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_roc_auc_of_a_draw_is_that_of_the_examples_drawn(classes):
    generator = np.random.default_rng(classes)
    labels = np.r_[0:classes, generator.integers(0, classes, 37)]
    probabilities = generator.dirichlet(np.ones(classes), (2, len(labels))).round(2)
    draws = score_draws("roc_auc", labels, probabilities, classes)
    assert draws.shape[1] == 2
    for seed, of_seed in enumerate(probabilities):
        for number, counts in enumerate(resamples(len(labels))[:20]):
            rows = np.repeat(np.arange(len(labels)), counts)
            expected = score(["roc_auc"], labels[rows], labels[rows], classes, of_seed[rows])["roc_auc"]
            assert draws[number, seed] == pytest.approx(expected)


def test_what_cannot_be_paired_is_refused(data):
    labels, ours, _ = data
    with pytest.raises(ValueError, match="not over the same examples"):
        score_draws("accuracy", labels, ours[:, :50])


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


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews", "pearson", "spearman"])
@pytest.mark.parametrize("constant", [0, 1])
def test_runs_that_say_the_same_of_every_example(metric, constant):
    labels = np.arange(60) % 2
    same, right = np.full((3, 60), constant), np.array([labels, labels, labels])
    assert score_interval(metric, labels, same).estimate == pytest.approx(score([metric], same[0], labels)[metric])
    assert difference_interval(metric, labels, same, same) == (0, 0, 0)
    assert difference_interval(metric, labels, right, same).excludes(0)
    of_one_class = difference_interval(metric, np.full(60, constant), same, same)
    assert of_one_class == (0, 0, 0)

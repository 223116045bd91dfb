"""P(best): against the normal distribution, and how often it comes true."""

import numpy as np
import pytest
from scipy import stats

from peftbench.tables.best import probabilities_best


def row(mean, seeds=60, spread=1.0, examples=0.0):
    scores = np.linspace(-1, 1, seeds)
    deviations = np.random.default_rng(int(100 * mean)).normal(0, examples, 4000)
    return mean + spread * scores / scores.std(ddof=1) + np.concatenate([[0], deviations])[:, None]


def test_of_two_rows_it_is_the_normal_distribution_s():
    found = probabilities_best({"a": row(80.2), "b": row(80.0)})
    assert found["a"] == pytest.approx(stats.norm.cdf(0.2 / np.sqrt(2 / 60)), abs=0.02)
    assert sum(found.values()) == pytest.approx(1)
    wide = probabilities_best({"a": row(80.2, examples=0.5), "b": row(80.0, examples=0.5)})
    assert wide["a"] == pytest.approx(stats.norm.cdf(0.2 / np.sqrt(2 / 60 + 0.5)), abs=0.02)


def test_equal_rows_share_it_and_few_seeds_leave_room():
    same = np.full((4001, 2), 0.8)
    assert probabilities_best({"a": same, "b": same, "c": same}) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    few, many = (probabilities_best({"a": row(81, seeds=s), "b": row(80, seeds=s)})["a"] for s in (2, 20))
    assert 0.5 < few < many < 1


@pytest.mark.parametrize("rows", [3, 8])
def test_rounding_breaks_no_tie(rows):
    drawn = np.random.default_rng(0).binomial(200, 0.8, 4001)[:, None] / 200 + np.zeros((1, 3))
    found = probabilities_best(dict.fromkeys(range(rows), drawn))
    assert list(found.values()) == pytest.approx([1 / rows] * rows, abs=1e-6)


def test_what_runs_vary_by_alone_counts_once():
    generator = np.random.default_rng(0)
    deviations = np.vstack([np.zeros(6), generator.normal(0, 1, (4000, 6))])
    scores = np.array([1.0, -1, 1, -1, 1, -1]) / np.sqrt(6 / 5)
    found = probabilities_best({"a": 0.5 + scores + deviations, "b": np.zeros((4001, 2))})
    assert found["a"] == pytest.approx(stats.t(5).cdf(0.5 * np.sqrt(6)), abs=0.02)


def test_it_comes_true_as_often_as_it_says():
    from scripts.calibrate_statistics import calibrate_best

    _, (said, true, _) = calibrate_best(rows=4, seeds=5, repetitions=150, limits=(0, 0.5, 1.01))
    assert said == pytest.approx(true, abs=0.12)

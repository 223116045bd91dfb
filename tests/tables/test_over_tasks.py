"""A table of several tasks: how sure the means over them are."""

from itertools import repeat

import numpy as np
import pytest

from peftbench.tables.bootstrap import score_draws
from peftbench.tables.over_tasks import reordered
from peftbench.tables.statistics import difference_interval, score_interval
from scripts.calibrate_statistics import DRAWS, accuracy_draws, simulate_correct


def mean_over(tasks):
    return np.mean([reordered(draws, number) for number, draws in enumerate(tasks)], axis=0)


def test_examples_of_different_tasks_vary_independently():
    labels = np.arange(900) % 2
    right = np.random.default_rng(0).random((3, 900)) < 0.8
    draws = score_draws("accuracy", labels, np.where(right, labels, 1 - labels))
    mean = mean_over([draws] * 4)
    assert mean[0] == pytest.approx(draws[0])
    assert mean[1:].std(axis=0) == pytest.approx(draws[1:].std(axis=0) / 2, rel=0.05), "of four, half as much"


def test_rows_of_one_task_stay_paired():
    draws = np.random.default_rng(0).random((1001, 2))
    assert reordered(draws + 1, 3) == pytest.approx(reordered(draws, 3) + 1)


@pytest.mark.long
@pytest.mark.parametrize("deviation", [0, 1, 3])
def test_means_of_equal_truth_are_told_apart_by_luck_as_seldom_as_stated(deviation):
    generator, seeds = np.random.default_rng(1), 3
    normal = generator.standard_normal((DRAWS, 2 * seeds))
    wrong, narrower = 0, []
    for _ in range(300):
        tasks = [
            accuracy_draws(simulate_correct(generator, examples, seeds, (deviation, deviation)), normal)
            for examples in (400, 700, 1500)
        ]
        rows = [mean_over(of_row) for of_row in zip(*tasks, strict=True)]
        wrong += difference_interval(*rows).excludes(0)
        alone = [score_interval(task[0]) for task in tasks]
        mean = score_interval(rows[0])
        narrower.append((mean.high - mean.low) / np.mean([one.high - one.low for one in alone]))
    assert wrong / 300 <= 0.088, "5 % and three standard errors"
    assert np.median(narrower) < 0.75, "three tasks tell more than one"


def test_the_order_is_the_same_at_every_call():
    draws = np.random.default_rng(0).random((1001, 1))
    once, again = (reordered(draws, number) for number in repeat(2, 2))
    assert np.array_equal(once, again) and not np.array_equal(once, reordered(draws, 1))

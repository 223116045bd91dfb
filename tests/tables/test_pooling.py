"""What rows of a table say of each other's seeds."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from peftbench.tables.pooling import UNPOOLED, freedom_of, moderate, pool_rows
from peftbench.tables.simultaneous import join_comparisons
from peftbench.tables.statistics import difference_interval, ratio_interval
from peftbench.tables.verdicts import DifferenceVariance, spread_of


def rows(deviations, seeds=3, draws=2000):
    """Rows about 80 whose seeds have exactly these standard deviations, and examples hardly any."""
    scores = np.linspace(-1, 1, seeds)
    scores /= scores.std(ddof=1)
    noise = 0.01 * np.random.default_rng(0).standard_normal((draws, 1))
    return {
        number: 80 + deviation * scores + np.concatenate([[[0.0]], noise])
        for number, deviation in enumerate(deviations)
    }


def test_a_variance_is_drawn_to_the_others_and_never_below_its_own():
    pool = pool_rows(rows([1, 2, 3, 2]).values())
    assert pool.variance == pytest.approx(4.5) and pool.scaled(100).variance == pytest.approx(45_000)
    assert moderate(1.0, pool.variance) == pytest.approx(0.25 + 0.75 * 4.5)
    assert moderate(np.array([9.0, 4.5]), pool.variance) == pytest.approx([9.0, 4.5])
    uneven = [*rows([2], seeds=2).values(), *rows([1, 1], seeds=6).values()]
    assert pool_rows(uneven).variance == pytest.approx((1 * 4 + 5 + 5) / 11)


def test_two_rows_are_left_alone():
    pair = rows([1, 2])
    assert pool_rows(pair.values()) == UNPOOLED
    assert join_comparisons([(0, 1)], pair).pool(None) == UNPOOLED


@pytest.mark.parametrize("count", [3, 5, 12, 40])
def test_degrees_of_freedom_are_no_more_than_rows_that_vary_alike_give(count):
    for seeds in (2, 3, 5):
        own = np.random.default_rng(0).chisquare(seeds - 1, (100_000, count)) / (seeds - 1)
        mixed = 0.25 * own[:, 0] + 0.75 * own.mean(axis=1)
        assert seeds - 1 < freedom_of(seeds, count) <= 2 * mixed.mean() ** 2 / mixed.var() * 1.02
    assert freedom_of(3, 2) == 2


def test_twelve_rows_of_three_seeds_tell_what_they_could_not_alone():
    table = rows([0.8, 1.0, 1.2] * 4)
    joint = join_comparisons(list(combinations(table, 2)), table)

    def width(pool):
        found = difference_interval(table[0], table[1], joint.confidence, pool)
        return found.high - found.low

    assert width(joint.pool(None)) < 0.35 * width(UNPOOLED)


def test_a_row_with_a_collapsed_seed_is_judged_by_itself_and_spoils_no_other():
    alike, wild = rows([0.8, 1.0, 1.2] * 2), rows([0.8, 1.0, 1.2] * 2 + [8.0])
    pools = [pool_rows(table.values()) for table in (alike, wild)]

    def width(row, other, pool):
        found = difference_interval(wild[row], wild[other], 0.95, pool)
        return found.high - found.low

    assert width(0, 1, pools[1]) < 1.3 * width(0, 1, pools[0])
    assert width(6, 0, pools[1]) == pytest.approx(width(6, 0, UNPOOLED), rel=0.05)
    assert spread_of(wild[6], wild[0], pools[1]).rows == 1 and spread_of(wild[1], wild[0], pools[1]).rows == 7


def test_metrics_are_pooled_each_by_itself():
    wide = {(number, "f1"): row for number, row in rows([5, 5, 5]).items()}
    narrow = {(number, "accuracy"): row for number, row in rows([1, 1, 1]).items()}
    joint = join_comparisons([((0, "f1"), (1, "f1"))], wide | narrow, kind=lambda key: key[1])
    assert [joint.pool(metric).variance for metric in ("f1", "accuracy")] == pytest.approx([25, 1])


def test_a_ratio_is_as_sure_as_the_difference():
    table = rows([0.1, 0.2, 0.3])
    pool = pool_rows(table.values())
    of_ratio = ratio_interval(table[0], table[1], 0.9, pool)
    of_difference = difference_interval(table[0], table[1], 0.9, pool)
    assert [80 * (end - 1) for end in of_ratio] == pytest.approx(of_difference, abs=2e-3)


def test_what_more_seeds_would_tell_reckons_with_the_other_rows():
    table = rows([1, 1, 1, 1, 1, 1, 1])
    pooled, alone = (spread_of(table[0], table[1], pool) for pool in (pool_rows(table.values()), UNPOOLED))
    assert pooled[1:] == pytest.approx((1, 1, 7)) and alone[1:] == pytest.approx((1, 1, 1))
    assert pooled.half_width(3, 0.999) < 0.4 * alone.half_width(3, 0.999)
    assert DifferenceVariance(0.0, 1.0, 1.0, 5).half_width(3, 0.95) == pytest.approx(
        (2 / 3) ** 0.5 * stats.t(6.25).ppf(0.975), rel=1e-3
    )

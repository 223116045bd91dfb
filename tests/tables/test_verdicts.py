"""What a difference comes to, and what it would take to tell it: against t, the normal distribution and simulation."""

import numpy as np
import pytest
from scipy import stats

from peftbench.tables.table import Pair
from peftbench.tables.verdicts import (
    BETTER,
    LOWER,
    OPEN,
    SAME,
    DifferenceVariance,
    bound,
    in_words,
    needs,
    needs_as_measured,
    spread_of,
    verdict,
)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.2, 3.0, BETTER),
        (0.2, 0.5, BETTER),
        (-3.0, -0.2, LOWER),
        (-0.9, 0.9, SAME),
        (-0.9, 1.1, OPEN),
        (-1.0, 0.5, OPEN),
        (0.0, 2.0, OPEN),
        (None, None, OPEN),
    ],
)
def test_three_verdicts(low, high, expected):
    assert verdict(low, high, delta=1.0) == expected
    mirrored = Pair("b", "a", 0.0, low, high, expected).reversed()
    assert verdict(mirrored.low, mirrored.high, delta=1.0) == mirrored.verdict


@pytest.mark.parametrize(
    "pair, expected",
    [
        (Pair("a", "b", 2, 1.24, 3, BETTER), "better by at least 1.2 points"),
        (Pair("a", "b", -2, -3, -0.96, LOWER), "lower by at least 0.9 points"),
        (Pair("a", "b", 0, -0.1, 0.2, SAME), "not different by more than 1 point"),
        (Pair("a", "b", 1, -1, 3, OPEN, 1200), "cannot be told: about 1,200 seeds each would decide"),
        (
            Pair("a", "b", 1, -1, 3, OPEN, None, 13_520),
            "cannot be told: no number of seeds would decide on these examples, many would on about 14,000",
        ),
        (Pair("a", "b", 1, None, None, OPEN), "cannot be told: each needs two seeds"),
        (Pair("a", "b", 1, -1, 1, OPEN), "cannot be told"),
    ],
)
def test_verdicts_in_words(pair, expected):
    assert in_words(pair, delta=1.0) == expected


def test_half_the_width_of_an_interval_is_that_of_t_and_normal_variables_added():
    assert DifferenceVariance(4.0, 0.0, 0.0).half_width(3, 0.95) == pytest.approx(1.96 * 2, rel=1e-3)
    assert DifferenceVariance(0.0, 3.0, 3.0).half_width(5, 0.9) == pytest.approx(
        stats.t(5).ppf(0.95) * np.sqrt(6 / 5), rel=1e-4
    )
    generator = np.random.default_rng(0)
    drawn = generator.normal(0, 1.5, 400_000) + generator.standard_t(2.5, 400_000)  # of 3 seeds, of equal variance
    assert DifferenceVariance(2.25, 1.5, 1.5).half_width(3, 0.95) == pytest.approx(np.quantile(drawn, 0.975), rel=0.02)


def test_so_many_seeds_tell_four_times_of_five():
    spread, room = DifferenceVariance(0.05, 1.0, 1.0), 1.5
    seeds = needs(spread, room, 0.95, examples=1000).seeds
    assert spread.detectable(seeds, 0.95) <= room < spread.detectable(seeds - 1, 0.95)
    generator = np.random.default_rng(0)
    runs = generator.standard_normal((2, 2000, seeds))
    estimates = room + runs[0].mean(1) - runs[1].mean(1) + generator.normal(0, 0.05**0.5, 2000)
    widths = [DifferenceVariance(0.05, *row).half_width(seeds, 0.95) for row in runs.var(axis=2, ddof=1).T[:400]]
    assert 0.75 < np.mean(np.abs(estimates[:400]) > widths) < 0.9


def test_where_no_number_of_seeds_would_tell_it_takes_more_examples():
    spread = DifferenceVariance(1.0, 1.0, 1.0)
    at_best = 1.96 + 0.8416
    found = needs(spread, 1.4, 0.95, examples=400)
    assert found.seeds is None and found.examples == pytest.approx(400 * (at_best / 1.4) ** 2, abs=2)
    assert needs(spread, at_best + 0.1, 0.95, examples=400).seeds > 10
    assert needs(DifferenceVariance(0.0, 0.0, 0.0), 1.0, 0.95, 400).seeds == 2


@pytest.mark.parametrize("of_seeds", [1e-12, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("above", [1e-12, 1e-7, 1e-5, 1e-4, 1e-3])
def test_what_endless_seeds_hardly_tell_takes_more_examples_or_a_number_of_seeds(of_seeds, above):
    spread = DifferenceVariance(1.0, of_seeds, of_seeds)
    found = needs(spread, spread.detectable(np.inf, 0.95) * (1 + above), 0.95, examples=400)
    assert (found.seeds is None) == (found.examples is not None)
    assert found.examples is None or 400 < found.examples <= 801


@pytest.mark.parametrize("difference", [0.0, 0.05, 0.1, 0.16, 0.3, 0.7, 1.5])
def test_so_many_examples_tell_a_difference_in_80_percent(difference):
    found = needs_as_measured(DifferenceVariance(1.0, 0.0, 0.0), difference, 1.0, 0.95, examples=1000)
    error = np.sqrt(1000 / found.examples)
    measured = difference + error * np.random.default_rng(0).standard_normal(20_000)
    low, high = measured - 1.96 * error, measured + 1.96 * error
    told = (low > -1) & (high < 1) if difference < 0.5 else low > 0
    assert 0.76 < told.mean() < 0.9


@pytest.mark.parametrize(
    ("end", "text"),
    [(1.26, "1.2"), (0.3, "0.3"), (-0.19, "0.1"), (0.04, "0.04"), (0.0017, "0.001"), (0.0, "0.0"), (12.0, "12.0")],
)
def test_at_least_is_never_more_than_was_shown(end, text):
    assert bound(end) == f"at least {text}"


def test_the_spread_is_read_off_the_draws():
    generator = np.random.default_rng(2)
    common = np.concatenate([[0], generator.normal(0, 2, 20_000)])
    ours = np.array([80.0, 82, 84]) + common[:, None]
    theirs = np.array([70.0, 71]) + np.zeros((20_001, 1))
    assert spread_of(ours, theirs) == pytest.approx((4, 4, 0.5, 1), rel=0.05)


def test_seeds_that_are_equal_by_chance_vary_as_single_runs_do_over_examples():
    deviations = np.random.default_rng(3).normal(0, 2, (20_000, 4))
    rows = np.concatenate([np.zeros((1, 4)), deviations]) + 80.0
    spread = spread_of(rows[:, :2], rows[:, 2:])
    assert spread == pytest.approx((0, 4, 4, 1), rel=0.05, abs=0.1)
    assert needs(spread, 1.0, 0.95, 60).seeds > 40  # 2 (1.96 + 0.84)² 4 = 63, were the spread known

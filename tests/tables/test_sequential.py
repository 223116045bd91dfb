"""Looking again and again: who gets more seeds, when it ends, and that it errs no more often than one look."""

import numpy as np
import pytest
from scipy.stats import norm

from peftbench.tables.sequential import follow, look_schedule
from peftbench.tables.table import Pair


def told(pair):
    return pair.low > 0


def course(scores, differ, available, most=20, baseline="base"):
    """Follow rows with fixed scores; `differ(row, other, seeds)` says from when on two are told apart.

    A pair's value is the share of errors that its look was allowed.
    """

    def compare(seeds, rows, alpha):
        return [
            Pair(row, other, alpha, low=1.0 if differ(row, other, seeds[row]) else -1.0, high=2.0)
            for number, row in enumerate(rows)
            for other in rows[number + 1 :]
        ]

    return follow(dict.fromkeys(scores, available), lambda row, seeds: scores[row], compare, told, baseline, most)


def test_looks_are_few_and_end_at_the_most_seeds():
    assert look_schedule(20) == [3, 5, 8, 12, 18, 20]
    assert look_schedule(2) == [2] and look_schedule(3) == [3]


def test_only_rows_whose_comparison_is_open_get_more_seeds():
    scores = {"base": 80.0, "clear": 90.0, "poor": 60.0, "close": 80.5}

    def differ(row, other, seeds):
        return {row, other} != {"base", "close"} or seeds >= 8

    first = course(scores, differ, available=2)
    assert first.seeds == dict.fromkeys(scores, 3) and not first.ended and first.looks_done == 0
    second = course(scores, differ, available=3)
    assert second.seeds == {"base": 5, "clear": 3, "poor": 3, "close": 5}
    assert [(pair.row, pair.other) for pair in second.open] == [("base", "close")]
    last = course(scores, differ, available=20)
    assert last.ended and last.open == [] and last.seeds == {"base": 8, "clear": 3, "poor": 3, "close": 8}


def test_pairs_of_neither_the_baseline_nor_the_highest_cost_no_seeds():
    scores = {"base": 80.0, "best": 90.0, "a": 70.0, "b": 70.1}
    done = course(scores, lambda row, other, seeds: {row, other} != {"a", "b"}, available=3)
    assert done.ended and done.looks_done == 1 and len(done.pairs) == 6


def test_it_ends_behind_the_most_seeds_with_what_is_open():
    done = course({"base": 80.0, "equal": 80.0}, lambda *_: False, available=20)
    assert done.ended and done.looks_done == len(look_schedule(20)) and len(done.open) == 1


def test_what_was_told_stays_as_it_was_told():
    done = course({"base": 1.0, "x": 2.0, "y": 1.0}, lambda row, other, seeds: "x" in (row, other), available=20)
    by_rows = {(pair.row, pair.other): pair.value for pair in done.pairs}
    assert by_rows["base", "x"] == pytest.approx(0.05 * 3 / 20), "as it was told at the first look"
    assert by_rows["base", "y"] == pytest.approx(0.05 * 2 / 20), "as it was seen last, behind 18 and 20 seeds"


@pytest.mark.parametrize(("naive", "least", "most"), [(False, 0.0, 0.05), (True, 0.09, 1.0)])
def test_equal_rows_are_told_apart_in_no_more_than_alpha_of_the_cases(naive, least, most):
    """Known variances; taking 5 % at each look instead is caught."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        runs = {row: np.cumsum(generator.standard_normal(20)) for row in ("base", "other")}

        def compare(seeds, rows, alpha, runs=runs):
            difference = runs["base"][seeds["base"] - 1] - runs["other"][seeds["other"] - 1]
            level = norm.ppf(1 - (0.05 if naive else alpha) / 2)
            return [Pair("base", "other", difference, abs(difference) - level * np.sqrt(2 * seeds["base"]), np.inf)]

        ended = follow({"base": 20, "other": 20}, lambda row, seeds: 0.0, compare, told, "base", 20)
        wrong += told(ended.pairs[0])
    assert least <= wrong / 2000 <= most


def test_what_no_number_of_seeds_could_tell_gets_no_more():
    def compare(seeds, rows, alpha):
        return [Pair("base", "equal", alpha, low=-1.0, high=1.0, futile=seeds["base"] >= 5)]

    ended = follow({"base": 5, "equal": 5}, lambda row, seeds: 0.0, compare, told, "base", 20)
    assert ended.ended and ended.open == [] and ended.seeds == {"base": 5, "equal": 5}
    assert [(pair.row, pair.other) for pair in ended.futile] == [("base", "equal")]

"""What a table could tell before it is trained: against closed forms, and in words."""

import numpy as np
import pytest
from scipy import stats

from peftbench.tables.export.plan import conclusion
from peftbench.tables.plan import assumed_spread, fill_durations, make_plan
from peftbench.tables.verdicts import DifferenceVariance


def plan(spreads, trained=None, seconds=60.0, **more):
    trained = trained or {"a": 0, "b": 0}
    settings = {"examples": 1000, "delta": 1.0, "seeds": 5, **more}
    return make_plan(spreads, len(trained), trained, dict.fromkeys(trained, seconds), **settings)


def test_one_pair_of_known_examples_is_the_normal_distribution_s():
    found = plan([DifferenceVariance(0.04, 1e-12, 1e-12)])
    assert found.confidence == 0.95
    assert found.outlooks[0].typical == pytest.approx(0.2 * (1.96 + 0.8416), rel=0.01)
    assert found.outlooks[0].equal == pytest.approx(0.2 * (1.96 + 1.2816), rel=0.01)
    assert found.typical.seeds == 2


def test_several_rows_ask_for_what_tukey_s_range_does():
    found = plan([DifferenceVariance(0.0, 1.0, 1.0)], dict.fromkeys("abcde", 0), seeds=60)
    tukey = stats.studentized_range.ppf(0.95, 5, np.inf) / np.sqrt(2)
    assert stats.norm.ppf((1 + found.confidence) / 2) == pytest.approx(tukey, abs=0.08)
    told = [outlook.typical for outlook in found.outlooks]
    assert told == sorted(told, reverse=True)


def test_runs_that_there_are_need_no_time():
    found = plan([DifferenceVariance(0.0, 0.1, 0.1)], {"a": 3, "b": 1}, seeds=3)
    by_seeds = {outlook.seeds: outlook for outlook in found.outlooks}
    assert (by_seeds[3].runs, by_seeds[3].seconds) == (2, 120)
    assert (by_seeds[5].runs, by_seeds[5].seconds) == (6, 360)
    assert all(outlook.seconds is None for outlook in plan([DifferenceVariance(0.0, 0.1, 0.1)], seconds=None).outlooks)


def test_what_telling_takes_in_words():
    needed = plan([DifferenceVariance(0.01, 0.5, 0.5)])
    seeds = needed.typical.seeds
    assert conclusion(needed).startswith(f"To tell 1 point: about {seeds} seeds of each row ({2 * seeds} runs, ")
    assert conclusion(needed).endswith(" min here).")
    two = plan([DifferenceVariance(0.01, 0.5, 0.5), DifferenceVariance(4.0, 1.0, 1.0)], delta=1.5)
    assert "for the median pair; no number of seeds does on 1,000 examples, it takes about 14,000 for the hardest" in (
        conclusion(two)
    )
    there = plan([DifferenceVariance(0.01, 0.5, 0.5)], {"a": 50, "b": 50})
    assert conclusion(there) == f"To tell 1 point: {seeds} seeds of each row, which there are."


def test_an_assumed_spread_shrinks_with_the_examples_and_durations_are_filled_from_what_is_known():
    few, many = assumed_spread(400, 2), assumed_spread(40_000, 2)
    assert few.examples == pytest.approx(100 * many.examples) and many.row_variance == pytest.approx(1, rel=0.02)
    assert fill_durations({"a": 10.0, "b": None, "c": 30.0}, [99.0]) == {"a": 10.0, "b": 20.0, "c": 30.0}
    assert fill_durations({"a": None}, [99.0]) == {"a": 99.0} and fill_durations({"a": None}, []) == {"a": None}

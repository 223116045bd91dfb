"""How often rows of equal truth are told apart by luck; the whole simulations are scripts/calibrate_*.py."""

import pytest

from scripts.calibrate_agreeing import TABLES, calibrate_agreeing
from scripts.calibrate_rare_classes import calibrate_rare
from scripts.calibrate_statistics import (
    BASELINE,
    PAIRS,
    calibrate,
    calibrate_bootstrap,
    calibrate_family,
)

# three standard errors of 5 % over the repetitions
WITHIN_ERROR = {300: 0.088, 60: 0.135}


@pytest.mark.parametrize("deviations", [(0, 0), (1, 1), (3, 3), (0.3, 3)])
@pytest.mark.parametrize(
    "examples, seeds",
    [
        (400, 2),
        (10_000, 2),
        (5000, 5),
        *(pytest.param(*sizes, marks=pytest.mark.long) for sizes in [(1500, 2), (1500, 3), (10_000, 10)]),
    ],
)
def test_rows_of_equal_truth_are_told_apart_by_luck_as_seldom_as_stated(examples, seeds, deviations):
    assert calibrate(examples, seeds, deviations, 300).error <= WITHIN_ERROR[300]


@pytest.mark.parametrize("seeds, most", [(5, 1.4), (10, 1.25)])
@pytest.mark.parametrize("deviation", [0, 1, 3])
def test_enough_seeds_have_nearly_ideal_intervals(seeds, most, deviation):
    found = calibrate(1500, seeds, (deviation, deviation), 200)
    assert found.width < most * found.ideal


@pytest.mark.long
def test_the_bootstrap_itself_is_as_seldom_wrong():
    found = calibrate_bootstrap("f1", 400, 3, 60)
    assert found.error <= WITHIN_ERROR[60] and found.width < 2.5 * found.ideal


@pytest.mark.long
@pytest.mark.parametrize("metric", ["miou", "roc_auc"])
def test_a_class_of_one_example_is_as_seldom_decisive(metric):
    assert calibrate_rare(metric, 1, 60).error <= WITHIN_ERROR[60]


@pytest.mark.parametrize(
    "kind, seeds, deviations",
    [
        (PAIRS, [10, 3, 5, 2, 10], [1] * 5),
        (PAIRS, [3] * 5, [3, 0.3, 0.3, 0.3, 0.3]),
        (BASELINE, [10] * 5, [0.3, 3, 3, 3, 3]),
    ],
)
def test_all_comparisons_together_are_as_seldom_wrong(kind, seeds, deviations):
    found = calibrate_family(kind, 1500, seeds, deviations, 60)
    assert found.error <= WITHIN_ERROR[60]
    assert found.confidence < 1 - 0.05 / (10 if kind == PAIRS else 4), "Bonferroni would ask for more"


@pytest.mark.parametrize("examples", [20, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", TABLES)
def test_few_examples_and_seeds_that_agree_are_as_seldom_wrong(kind, examples):
    assert calibrate_agreeing(examples, *TABLES[kind], repetitions=60).wrong <= WITHIN_ERROR[60]


def test_by_the_bootstrap_alone_few_examples_are_wrong():
    assert calibrate_agreeing(20, *TABLES["2 points"], repetitions=30, more=False).wrong > 0.4

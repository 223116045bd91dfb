"""Where few examples tell rows apart, or none do: against the exact sign test."""

import numpy as np
import pytest
from scipy import stats

from peftbench.runs.predictions import Predictions
from peftbench.tables.bootstrap import score_draws
from peftbench.tables.pairs import compare_pairs
from peftbench.tables.scored import RowScores
from peftbench.tables.statistics import unshared_variance
from peftbench.tables.unseen_examples import score_step, with_unseen_examples
from peftbench.tables.verdicts import BETTER, OPEN, SAME
from peftbench.tasks.metrics import score


def scored(**wrong):
    """Rows of three seeds that all err on the examples given, by label; `examples` is how many there are."""
    examples = wrong.pop("examples")
    labels = np.arange(examples) % 2
    rows = {}
    for label, places in wrong.items():
        said = labels.copy()
        said[places] = 1 - said[places]
        rows[label] = RowScores({seed: Predictions(labels, said, np.eye(2)[said].tolist()) for seed in range(3)})
    return rows


@pytest.mark.parametrize("examples", [1, 5, 20, 50, 100, 200, 350])
def test_the_same_answers_on_few_examples_tell_nothing(examples):
    (pair,) = compare_pairs(scored(examples=examples, a=[], b=[]), "accuracy")
    assert pair.verdict == OPEN and pair.futile, "no number of seeds would tell"
    assert pair.high == pytest.approx(min(100, 100 * np.log(40) / examples), rel=0.1)


def test_the_same_answers_on_many_examples_are_no_difference():
    (pair,) = compare_pairs(scored(examples=400, a=[], b=[]), "accuracy")
    assert pair.verdict == SAME


@pytest.mark.parametrize("metric", ["f1", "macro_f1", "matthews"])
def test_other_scores_than_accuracy_tell_nothing_either(metric):
    (pair,) = compare_pairs(scored(examples=150, a=[3], b=[3]), metric)
    assert pair.verdict == OPEN


@pytest.mark.parametrize("examples", [100, 400])
@pytest.mark.parametrize("wrong, told", [(4, False), (5, False), (6, True), (9, True)])
def test_examples_on_one_side_tell_as_the_sign_test_does(examples, wrong, told):
    (pair,) = compare_pairs(scored(examples=examples, ours=[], theirs=range(wrong)), "accuracy")
    assert (pair.verdict == BETTER) is told is bool(stats.binomtest(wrong, wrong).pvalue < 0.05)


def test_of_many_rows_of_the_same_answers_none_is_called_alike_on_few_examples():
    pairs = compare_pairs(scored(examples=500, **{f"row {number}": [] for number in range(8)}), "accuracy")
    assert {pair.verdict for pair in pairs} == {OPEN}, "28 comparisons at 95 % for all of them together"


def test_many_examples_leave_intervals_as_they_are():
    generator = np.random.default_rng(0)
    labels = np.ones(2638, dtype=int)
    ours, theirs = (generator.random((3, 2638)) < rate for rate in (0.86, 0.85))
    rows = {"ours": ours, "theirs": theirs}
    draws = {label: 100 * score_draws("accuracy", labels, right.astype(int), 2) for label, right in rows.items()}
    with_more = {label: with_unseen_examples(drawn, 100 / 2638, label) for label, drawn in draws.items()}
    before, after = ((one["ours"].mean(axis=1) - one["theirs"].mean(axis=1))[1:].std() for one in (draws, with_more))
    assert after == pytest.approx(before, abs=0.002)
    assert unshared_variance(with_more["ours"]) == pytest.approx(unshared_variance(draws["ours"])), (
        "it is common to all seeds"
    )


def test_a_row_varies_alike_wherever_it_is_compared():
    drawn = np.zeros((1001, 2))
    ours, again, theirs = (with_unseen_examples(drawn, 1.0, label) for label in ("ours", "ours", "theirs"))
    np.testing.assert_array_equal(ours, again)
    assert abs(np.corrcoef(ours[:, 0], theirs[:, 0])[0, 1]) < 0.1
    assert (ours[0] == 0).all() and ours.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "metric, sizes",
    [
        *((metric, sizes) for metric in ("accuracy", "f1", "macro_f1") for sizes in ((500, 500), (400, 300, 300))),
        *((metric, (900, 100)) for metric in ("accuracy", "f1", "macro_f1", "matthews")),
        ("matthews", (500, 500)),
    ],
)
def test_the_worth_of_an_example_is_what_a_wrong_answer_costs(metric, sizes):
    classes = len(sizes)
    labels = np.repeat(np.arange(classes), sizes)
    costs = []
    for label in range(classes):  # a class more or less, in turn
        said = labels.copy()
        said[np.flatnonzero(labels == label)[0]] = (label + 1) % classes
        costs.append(1 - score([metric], said, labels, classes)[metric])
    assert score_step(metric, labels, classes) == pytest.approx(np.mean(costs), rel=0.03)


def pixels(pictures_with):
    return np.stack([500 * (np.arange(40) < count) for count in pictures_with], axis=1)


def objects(pictures_with):
    boxes = np.full((40, len(pictures_with) + 1, 6), -1.0)
    for kind, count in enumerate(pictures_with):
        boxes[:count, kind] = [kind, 0.5, 0.5, 0.2, 0.2, 0]
    boxes[5, -1] = [len(pictures_with), 0.5, 0.5, 0.2, 0.2, 1]  # a crowd, which is scored by nothing
    return boxes


@pytest.mark.parametrize(("metric", "made"), [("miou", pixels), ("ap", objects), ("ap50", objects), ("ap75", objects)])
def test_a_picture_of_a_rare_class_is_worth_its_share_of_the_mean(metric, made):
    assert score_step(metric, made([40, 40, 40, 40, 2])) == pytest.approx((4 / 40 + 1 / 2) / 5**2)
    assert score_step(metric, made([40, 40, 40, 40, 40])) == pytest.approx(1 / 3 / 40), "as any picture"


def test_an_example_of_a_rare_class_is_worth_more_to_the_area():
    few, even = (score_step("roc_auc", (np.arange(200) < positive).astype(int)) for positive in (2, 100))
    assert few == pytest.approx((1 / 2 + 1 / 198) / 4 / 3) and even == pytest.approx(1 / 3 / 200)

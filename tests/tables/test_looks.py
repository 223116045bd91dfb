"""A process that looks again computes what is new, and sees what one that starts over sees."""

from types import SimpleNamespace

import numpy as np

from peftbench.runs.predictions import Predictions
from peftbench.tables.looks import follow_scores
from peftbench.tables.pairs import compare_pairs
from peftbench.tables.scored import RowScores


def rows(seeds):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    found = {}
    for label, accuracy in (("base", 0.80), ("better", 0.86), ("equal", 0.80)):
        said = [np.where(generator.random(300) < accuracy, labels, 1 - labels) for _ in range(8)]
        told = {seed: Predictions(labels, said[seed], np.eye(2)[said[seed]].tolist()) for seed in range(seeds)}
        found[label] = RowScores(told)
    return found


def test_draws_of_added_seeds_join_those_there_were():
    before, after, fresh = rows(3)["base"], rows(8)["base"], rows(8)["base"]
    after.take_draws(before, "accuracy")
    np.testing.assert_array_equal(after.draws("accuracy"), fresh.draws("accuracy"))


def test_a_row_s_first_seeds_are_what_they_were():
    np.testing.assert_array_equal(rows(8)["base"].first(3, "f1").draws("f1"), rows(3)["base"].draws("f1"))


def test_stopping_and_going_on_sees_what_one_sitting_sees():
    labels = [SimpleNamespace(label=label) for label in rows(1)]
    spec = SimpleNamespace(most_seeds=8, seeds=list(range(8)), rows=labels, delta=1.0, baseline="base")
    early, whole = follow_scores(spec, rows(3), "accuracy"), follow_scores(spec, rows(8), "accuracy")
    assert early.seeds == {"base": 5, "better": 5, "equal": 5} and not early.ended
    assert whole.ended and whole.seeds["base"] == 8
    spec.seeds = spec.seeds[:5]
    assert follow_scores(spec, rows(5), "accuracy").looks_done == 2


def test_equal_rows_on_few_examples_end_before_the_most_seeds():
    labels = [SimpleNamespace(label=label) for label in ("base", "equal")]
    spec = SimpleNamespace(most_seeds=60, seeds=list(range(60)), rows=labels, delta=1.0, baseline="base")
    generator = np.random.default_rng(1)
    truth, found = generator.integers(0, 2, 300), {}
    hard = generator.random(300)
    for label in ("base", "equal"):
        said = [np.where(0.9 * hard + 0.1 * generator.random(300) < 0.8, truth, 1 - truth) for _ in range(60)]
        found[label] = RowScores({n: Predictions(truth, x, np.eye(2)[x].tolist()) for n, x in enumerate(said)})
    course = follow_scores(spec, found, "accuracy")
    assert course.ended and course.seeds["base"] < 60
    assert [pair.verdict for pair in course.pairs] in (["cannot be told"], ["not different"])


def test_rows_that_answer_alike_on_few_examples_stay_open_and_get_no_more_seeds():
    labels = [SimpleNamespace(label=label) for label in ("base", "equal")]
    spec = SimpleNamespace(most_seeds=20, seeds=list(range(20)), rows=labels, delta=1.0, baseline="base")
    truth = np.arange(300) % 2
    said = {seed: Predictions(truth, truth, np.eye(2)[truth].tolist()) for seed in range(3)}
    course = follow_scores(spec, {label.label: RowScores(said, label=label.label) for label in labels}, "accuracy")
    assert course.ended and course.looks_done == 1 and len(course.futile) == 1
    assert [pair.verdict for pair in course.pairs] == ["cannot be told"]


def test_rows_that_are_compared_no_more_still_tell_of_the_spread_over_seeds():
    scored = rows(3)
    (within,) = compare_pairs(scored, "accuracy", compared=["base", "equal"])
    (alone,) = compare_pairs({label: scored[label] for label in ("base", "equal")}, "accuracy")
    assert (within.row, within.other, within.value) == (alone.row, alone.other, alone.value)
    assert within.high - within.low < 0.9 * (alone.high - alone.low)

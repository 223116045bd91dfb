"""The sentence under a table: the best row, and the cheapest that cannot be told from it."""

import numpy as np
import pytest

from peftbench.runs.predictions import Predictions
from peftbench.tables.columns import COLUMNS
from peftbench.tables.conclusion import conclude
from peftbench.tables.notes import why_uncompared
from peftbench.tables.pairs import compare_pairs
from peftbench.tables.scored import RowScores
from peftbench.tables.table import Cell, Row, format_interval

EXAMPLES = 400


def made(accuracies):
    """Return runs of the accuracies given, which err on the same examples as far as they can."""
    labels = np.arange(EXAMPLES) % 2
    order = np.random.default_rng(0).permutation(EXAMPLES)
    wrong = [np.isin(np.arange(EXAMPLES), order[: round((1 - accuracy) * EXAMPLES)]) for accuracy in accuracies]
    said = [np.where(of_seed, 1 - labels, labels) for of_seed in wrong]
    return RowScores(
        {seed: Predictions(labels, answers, np.eye(2)[answers].tolist()) for seed, answers in enumerate(said)}
    )


def sentence(**rows):
    """`label=(trained parameters, accuracies)`; None for a row without a score."""
    scored = {label: made(accuracies) for label, (_, accuracies) in rows.items() if accuracies}
    table = []
    for label, (trained, accuracies) in rows.items():
        cells = {"trained": Cell(trained)}
        if accuracies:
            cells["accuracy"] = Cell(100 * float(np.mean(accuracies)), 0.1, len(accuracies))
        table.append(Row(label, [], False, cells, []))
    return conclude(table, compare_pairs(scored, "accuracy"), COLUMNS["accuracy"], 1.0, why_uncompared(None))


FULL, EQUAL, WORSE = (0.86, 0.855, 0.8525), (0.855, 0.8525, 0.85), (0.6, 0.605, 0.6)


def test_the_cheapest_that_cannot_be_told_from_the_best():
    found = sentence(full=(1000, FULL), lora=(20, EQUAL), adapter=(50, EQUAL), head=(0, WORSE))
    assert found.startswith(
        "Highest accuracy: full, 85.6 ± 0.1 % (3 seeds); the cheapest that cannot be told from it is"
    )
    assert "is lora, 85.2 ± 0.1 % (3 seeds) (20 trained parameters against 1,000; difference −0.3 (" in found
    assert (
        "95 % for all 6 pairs of rows together; no number of seeds would decide on these examples, "
        "many would on about 1,000)." in found
    )


def test_the_best_may_be_the_cheapest():
    assert "every cheaper row scores lower" in sentence(full=(1000, FULL), head=(0, WORSE))
    assert "no row compared with it trains fewer" in sentence(full=(1000, WORSE), lora=(20, FULL))


def test_one_seed_tells_nothing():
    found = sentence(full=(1000, FULL[:1]), lora=(20, WORSE[:1]))
    assert found.startswith(
        "Highest accuracy: full, 86.0 ± 0.1 % (1 seed), compared with no other row, for want of a second seed"
    )
    assert "whether it is better cannot be told" in found
    mixed = sentence(full=(1000, FULL), lora=(20, EQUAL), head=(0, WORSE[:1]))
    assert "cheapest that cannot be told from it is lora" in mixed
    assert "Not compared, for want of a second seed or the same examples: head." in mixed


@pytest.mark.parametrize("rows, expected", [({}, ""), ({"full": (1000, None)}, "")])
def test_no_row_no_sentence(rows, expected):
    assert sentence(**rows) == expected


def test_one_row_is_compared_with_none():
    found = sentence(full=(1000, FULL), lora=(20, None))
    assert found == "One row has a score, full: 85.6 ± 0.1 % (3 seeds). There is none to compare it with."


def test_what_rounds_to_zero_has_no_sign():
    assert [format_interval((value, None, None), COLUMNS["difference"]) for value in (-0.04, -0.06)] == ["0.0", "−0.1"]


@pytest.mark.parametrize(("metric", "widest"), [("accuracy", 100), ("matthews", 200)])
def test_no_difference_goes_beyond_what_scores_can_be(metric, widest):
    (pair,) = compare_pairs({"wild": made((0.99, 0.01)), "full": made(FULL)}, metric)
    assert {abs(pair.low), abs(pair.high)} == {widest}

"""Tie groups: two rows share a letter exactly where they are not told apart, and no letter is too many."""

from itertools import combinations

import numpy as np
import pytest

from peftbench.tables import groups
from peftbench.tables.groups import tie_groups
from peftbench.tables.notes import how_to_read_groups
from peftbench.tables.table import Cell, Pair, Row
from peftbench.tables.verdicts import BETTER, OPEN


def pairs_of(labels, told):
    return [
        Pair(row, other, 1.0, 0.5 if (row, other) in told else -0.5, 1.5, BETTER if (row, other) in told else OPEN)
        for row, other in combinations(labels, 2)
    ]


def test_letters_as_in_a_table_of_means():
    told = {("full", "head"), ("full", "prompt"), ("lora", "head")}
    found = tie_groups(["full", "lora", "prompt", "head"], pairs_of(["full", "lora", "prompt", "head"], told))
    assert found == {"full": "a", "lora": "ab", "prompt": "bc", "head": "c"}


@pytest.mark.parametrize("seed", range(5))
def test_two_rows_share_a_letter_exactly_where_they_are_tied(seed):
    generator = np.random.default_rng(seed)
    labels = [f"row {number}" for number in range(9)]
    told = {pair for pair in combinations(labels, 2) if generator.random() < 0.4}
    found = tie_groups(labels, pairs_of(labels, told))
    for row, other in combinations(labels, 2):
        assert bool(set(found[row]) & set(found[other])) == ((row, other) not in told)
    members = [{label for label in labels if letter in found[label]} for letter in sorted(set("".join(found.values())))]
    assert not any(one < other for one, other in combinations(members, 2)), "sets within others"


def test_all_alike_share_one_letter_and_rows_of_one_seed_have_none():
    pairs = [*pairs_of(["a", "b"], set()), Pair("a", "c", 1.0), Pair("b", "c", 1.0)]
    assert tie_groups(["a", "b", "c"], pairs) == {"a": "a", "b": "a"}


@pytest.mark.parametrize(("couples", "letters"), [(5, 16), (6, 0)])
def test_more_letters_than_anyone_reads_are_left_out_with_a_note(couples, letters):
    labels = [f"row {number}" for number in range(2 * couples)]
    told = set(zip(labels[::2], labels[1::2], strict=True))  # of each couple either may be in a set: 2^couples sets
    pairs = pairs_of(labels, told)
    found = tie_groups(labels, pairs)
    assert {len(set(of_row)) for of_row in found.values()} == {letters}
    rows = [Row(label, [], False, {"p_best": Cell(8.0)}, [], found[label]) for label in labels]
    (line,) = [line for line in how_to_read_groups(1.0, pairs, rows) if line.startswith("group: ")]
    assert line.startswith("group: left out, more than 52 letters") == (not letters)


def test_rows_that_are_all_alike_are_one_set_however_many_they_are():
    assert groups._maximal([(1 << 1200) - 1 - (1 << row) for row in range(1200)]) == [(1 << 1200) - 1]


def test_a_search_without_an_end_is_given_up():
    generator = np.random.default_rng(0)
    ties = [0] * 300
    for row, other in combinations(range(300), 2):
        if generator.random() < 0.95:
            ties[row] |= 1 << other
            ties[other] |= 1 << row
    assert groups._maximal(ties) is None

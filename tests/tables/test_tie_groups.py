"""Tie groups: two rows share a letter exactly where they are not told apart, and no letter is too many."""

from itertools import combinations

import numpy as np
import pytest

from peftbench.tables.groups import tie_groups
from peftbench.tables.table import Pair
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

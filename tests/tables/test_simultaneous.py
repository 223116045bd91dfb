"""How sure each comparison is for all together: against Tukey's range, Dunnett's test and Bonferroni's bound."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from peftbench.tables.simultaneous import join_comparisons

DRAWS = 10_000


def rows(seeds, examples=0.0, spread=0.01):
    """Rows of so many seeds each, which vary by `spread`, and by `examples` over the draws, half of it in common."""
    generator = np.random.default_rng(1)
    shared = np.concatenate([[0], generator.standard_normal(DRAWS)])
    found = {}
    for number, count in enumerate(seeds):
        scores = np.linspace(-1, 1, count)
        own = np.concatenate([[0], generator.standard_normal(DRAWS)])
        scores = 0.8 + spread * scores / scores.std(ddof=1)
        found[number] = scores + (examples * (shared + own))[:, None]
    return found


@pytest.mark.parametrize("count", [3, 6])
def test_all_pairs_of_rows_with_many_seeds_are_tukey_s(count):
    found = join_comparisons(list(combinations(range(count), 2)), rows([60] * count)).confidence
    tukey = stats.studentized_range.ppf(0.95, count, np.inf) / np.sqrt(2)
    assert stats.norm.ppf((1 + found) / 2) == pytest.approx(tukey, abs=0.06)


def test_comparisons_with_one_baseline_are_dunnett_s():
    found = join_comparisons([(row, 0) for row in range(1, 6)], rows([60] * 6)).confidence
    assert stats.norm.ppf((1 + found) / 2) == pytest.approx(2.51, abs=0.05)  # Dunnett 1955, table 2a, p = 5


def test_what_rows_share_over_the_examples_counts():
    pairs = list(combinations(range(4), 2))
    correlated = join_comparisons(pairs, rows([5] * 4, examples=0.02, spread=1e-9)).confidence
    assert 0.95 < correlated < 1 - 0.05 / 6


def test_one_comparison_is_at_what_is_asked_and_several_at_most_at_bonferroni_s():
    assert join_comparisons([(0, 1)], rows([3, 3]), alpha=0.1).confidence == 0.9
    unlike = [(0, 1), (2, 3)]  # which share no row
    found = join_comparisons(unlike, rows([3] * 4)).confidence
    assert found == pytest.approx(0.95**0.5, abs=0.003) and found <= 1 - 0.05 / 2


def test_rows_without_any_spread_are_at_what_is_asked():
    assert join_comparisons([(0, 1), (1, 2)], rows([2] * 3, spread=0)).confidence == 0.95

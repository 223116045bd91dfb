"""The expected best of k trials: the closed form against all ways in which k trials can be drawn."""

from itertools import product

import numpy as np
import pytest

from peftbench.tables.expected_best import expected_best


@pytest.mark.parametrize("scores", [[0.7], [0.7, 0.9], [0.8, 0.5, 0.9, 0.85, 0.8]])
def test_it_is_the_mean_over_all_draws(scores):
    drawn = [np.mean([max(draw) for draw in product(scores, repeat=k)]) for k in range(1, len(scores) + 1)]
    assert expected_best(scores) == pytest.approx(drawn)


def test_more_trials_are_never_worse():
    found = expected_best(np.random.default_rng(0).normal(size=40))
    assert len(found) == 40
    assert all(one < other for one, other in zip(found, found[1:], strict=False))

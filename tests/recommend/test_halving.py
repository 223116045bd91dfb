"""Who is trained how far, by what it costs."""

import pytest

from peftbench.recommend.halving import FINALISTS, LEAST, LEAST_STEPS, Cost, Stage, finalists, first_stage, second_stage

EQUAL = {f"method {number}": Cost(training=100.0, fixed=2.0) for number in range(14)}


def test_without_a_budget_every_candidate_gets_a_quarter_and_half_of_them_a_half():
    first = first_stage(EQUAL)
    assert (first.labels, first.fraction) == (list(EQUAL), 1 / 4)
    second = second_stage(list(reversed(EQUAL)), first, EQUAL)
    assert (second.labels, second.fraction) == (list(reversed(EQUAL))[:7], 1 / 2)
    assert finalists(second.labels, EQUAL) == second.labels[:FINALISTS]


@pytest.mark.parametrize("budget", [110, 300, 600, 1200, 2400, 1e6])
def test_the_first_stages_stay_within_their_part_of_the_budget(budget):
    first = first_stage(EQUAL, budget)
    assert LEAST <= first.fraction <= 1 / 4 and first.labels == list(EQUAL)[: len(first.labels)]
    spent = sum(EQUAL[label].of(first.fraction) for label in first.labels)
    assert spent <= budget / 4 + 1e-9 or len(first.labels) == 1
    second = second_stage(first.labels, first, EQUAL, budget)
    if second is not None:
        assert first.fraction < second.fraction <= 1 / 2
        assert sum(EQUAL[label].of(second.fraction) for label in second.labels) <= budget / 4 + 1e-9
    left = budget / 2
    last = finalists(first.labels, EQUAL, left)
    assert len(last) == 1 or 2 * sum(EQUAL[label].of(1) for label in last) <= left


def test_a_longer_budget_never_leaves_more_candidates_out():
    taking_part = [len(first_stage(EQUAL, budget).labels) for budget in range(100, 3000, 50)]
    assert taking_part == sorted(taking_part) and taking_part[0] == 3 and taking_part[-1] == len(EQUAL)


def test_a_stage_is_of_steps_that_say_something_and_of_a_fraction_that_comes_again():
    stage = first_stage(EQUAL, 300)
    assert [stage.steps(total) for total in (4, 20, 1600)] == [4, LEAST_STEPS, round(stage.fraction * 1600)]
    dearer = {label: Cost(cost.training, cost.fixed + 0.3) for label, cost in EQUAL.items()}
    second = second_stage(list(EQUAL), stage, EQUAL, 600)
    assert second is not None and second_stage(list(EQUAL), stage, dearer, 600, overhead=0.5) == second
    assert second_stage(list(EQUAL), stage, EQUAL, 600, overhead=20) is None


def test_few_candidates_go_straight_into_the_last_stage():
    few = dict(list(EQUAL.items())[:3])
    assert second_stage(list(few), Stage(list(few), 1 / 4), few) is None
    assert finalists(list(few), few) == list(few)[:2]


def test_what_a_run_costs_apart_from_its_steps_counts():
    slow_start = {label: Cost(training=1.0, fixed=100.0) for label in EQUAL}
    assert len(first_stage(slow_start, 2000).labels) == 4  # 4 × 100 s and a little are a quarter of 2,000 s

"""Which trial wins, and what is said of its runs on fresh seeds."""

from pathlib import Path

import pytest
from records import finished_fields

from peftbench.runs.result import Result, Status
from peftbench.search.select import Summary, Trial, outcome, rank, select, summarize
from peftbench.tables.collect import PlannedRun, RunState


def trial(number: int, score: float | None, trained: int = 100) -> Trial:
    scores = {} if score is None else {"accuracy": score, "f1": 1 - score}
    return Trial(number, {"x": str(number)}, f"run-{number}", "finished", None, scores, trained, 1.0)


def found(seed: int = 0, used: bool = True, **metrics: dict) -> RunState:
    config = {"task": {"metrics": ["accuracy", "f1"]}}
    planned = PlannedRun("", seed, [f"seed={seed}"], config, Path(f"run-s{seed}"))
    examples = dict.fromkeys(metrics, 10)
    fields = finished_fields(metrics, examples, train=2.0) if used else {}
    status, reason = (Status.FINISHED, None) if used else (Status.FAILED, "the loss became nan")
    result = Result(status, f"run-s{seed}", "lab", "lora", "mrpc", "minilm", seed, "", **fields)
    return RunState(planned, status, reason, result, used)


def test_the_best_primary_score_wins():
    trials = [trial(1, 0.7), trial(2, 0.9), trial(3, 0.8)]
    assert [one.number for one in rank(trials, "accuracy")] == [2, 3, 1]
    assert select(trials, "accuracy").number == 2
    assert select(trials, "f1").number == 1


def test_of_equal_scores_fewer_trained_parameters_win_then_the_order():
    assert select([trial(1, 0.8, 200), trial(2, 0.8, 100), trial(3, 0.8, 100)], "accuracy").number == 2


def test_a_trial_without_a_score_loses_even_to_the_worst():
    trials = [trial(1, None), trial(2, -0.5), trial(3, None)]
    assert [one.number for one in rank(trials, "accuracy")] == [2, 1, 3]
    assert select([trial(1, None)], "accuracy") is None
    assert select([], "accuracy") is None


def test_an_outcome_is_of_validation_alone():
    validation = {"accuracy": 0.75, "f1": 0.5, "loss": 0.1}
    with_test, without = found(validation=validation, test={"accuracy": 0.1}), found(validation=validation)
    assert outcome(1, {}, with_test) == outcome(1, {}, without)
    told = outcome(1, {}, without)
    assert (told.scores, told.trained, told.seconds) == ({"accuracy": 0.75, "f1": 0.5}, 1000, 2.0)


def test_a_failed_run_has_no_score():
    failed = outcome(1, {}, found(used=False))
    assert (failed.scores, failed.trained, failed.reason) == ({}, None, "the loss became nan")


def test_fresh_seeds_are_summed_up_by_split():
    runs = [found(seed, validation={"accuracy": score}, test={"accuracy": 0.5}) for seed, score in ((1, 0.8), (2, 0.9))]
    told = summarize([*runs, found(3, used=False)])
    assert told["validation"] == {"accuracy": Summary(pytest.approx(0.85), pytest.approx(0.0707, abs=1e-4), 2)}
    assert told["test"]["accuracy"].mean == 0.5
    assert summarize(runs[:1])["validation"]["accuracy"].sd is None
    assert summarize([found(3, used=False)]) == {}

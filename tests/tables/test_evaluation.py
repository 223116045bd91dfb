"""Which evaluation of its runs a table shows: validation, test, merged, and a run that has none of the kind."""

from dataclasses import replace

import numpy as np
import pytest
from records import finished_fields

from peftbench.errors import UserError
from peftbench.runs.identity import run_id
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.runs.result import Evaluation
from peftbench.sweeps.request import read_request
from peftbench.tables.build import build_table
from peftbench.tables.collect import NOT_EVALUATED, PlannedRun, collect
from peftbench.tables.export.grid import subtitle
from peftbench.tables.spec import EvaluationSpec, read_spec

RAW = {
    "title": "Made",
    "baseline": "unmerged",
    "columns": ["accuracy", "difference"],
    "rows": [
        {"label": "unmerged", "overrides": ["method=lora"]},
        {"label": "merged", "overrides": ["method=lora"], "evaluation": {"merged": True}},
    ],
}


def answers(right: int, of: int) -> Predictions:
    labels = np.arange(of) % 2
    predictions = np.where(np.arange(of) < right, labels, 1 - labels)
    return Predictions(labels, predictions, np.eye(2)[predictions])


@pytest.fixture
def planned(tmp_path):
    """Two rows of the same two runs: 30 of 40 right on validation, 50 of 80 on test."""
    runs = []
    for seed in (0, 1):
        task = {"name": "mrpc", "metrics": ["accuracy"]}
        config = {
            "method": {"name": "lora"},
            "task": task,
            "model": {"name": "minilm"},
            "trainer": {},
            "seed": seed,
            "experiment": "lab",
        }
        folder = tmp_path / run_id(config)
        record = Record.create(folder, config, ["method=lora", f"seed={seed}"])
        record.write_predictions({"validation": answers(30, 40), "test": answers(50, 80)}, ["no", "yes"])
        metrics = {"validation": {"accuracy": 0.75}, "test": {"accuracy": 0.625}}
        record.finish(**finished_fields(metrics, {"validation": 40, "test": 80}))
        runs += [PlannedRun(label, seed, ["method=lora"], config, folder) for label in ("unmerged", "merged")]
    return runs


def shown(planned, spec):
    rows = {row.label: spec.evaluation_of(row) for row in spec.rows}
    return build_table(spec, collect([replace(run, evaluation=rows[run.label]) for run in planned]), "x")


def test_a_table_shows_the_split_it_is_asked_for(planned):
    for split, accuracy, examples in (("validation", 75.0, 40), ("test", 62.5, 80)):
        table = shown(planned, read_spec("made", RAW, 2, {"split": split, "merged": None}))
        assert table.rows[0].cells["accuracy"].value == accuracy and table.examples == examples
        assert f"n = {examples} examples of {split}" in subtitle(table)


def test_two_rows_may_show_two_evaluations_of_the_same_runs(planned):
    without = shown(planned, read_spec("made", RAW, 2))
    assert [run.status for run in without.rows[1].runs] == [NOT_EVALUATED] * 2
    command = f"peftbench evaluate {planned[1].folder} --split validation --merged"
    assert any(
        note.startswith("no scores on validation, merged: merged:") and command in note for note in without.notes
    )

    for run in planned[1::2]:
        record = Record(run.folder)
        origin = record.read().evaluations[0]
        merged = Evaluation("validation", 40, {"accuracy": 0.7}, origin.precision, origin.data, merged=True)
        record.add_evaluation(merged, answers(28, 40), ["no", "yes"])
    table = shown(planned, read_spec("made", RAW, 2))
    assert [row.cells["accuracy"].value for row in table.rows] == [75.0, 70.0]
    assert table.rows[1].cells["difference"].value == pytest.approx(-5)


def test_the_line_decides_over_the_table():
    assert read_request(["table=smoke"]).spec.evaluation == EvaluationSpec("validation")
    request = read_request(["table=smoke", "evaluation.split=test"])
    assert request.spec.evaluation == EvaluationSpec("test")
    assert {run.evaluation for run in request.planned} == {EvaluationSpec("test")}
    assert "evaluation.split=test" in request.command
    test = read_spec("made", {**RAW, "evaluation": {"split": "test"}}, 1)
    assert str(test.evaluation) == "test" and str(test.evaluation_of(test.rows[1])) == "test, merged"


def test_what_is_no_evaluation_is_refused():
    with pytest.raises(UserError, match="the line: evaluation.split=dev must be validation or test"):
        read_request(["table=smoke", "evaluation.split=dev"])
    with pytest.raises(UserError, match=r"a row: evaluation\.merged=2 must be true or false"):
        read_spec("made", {**RAW, "rows": [{**RAW["rows"][0], "evaluation": {"merged": 2}}]}, 1)
    with pytest.raises(UserError, match="row 'linear probe': evaluation.merged=true, but head cannot be merged"):
        read_request(["table=smoke", "evaluation.merged=true"])
    with pytest.raises(UserError, match="evaluation has no key 'spilt'"):
        read_spec("made", {**RAW, "evaluation": {"spilt": "test"}}, 1)

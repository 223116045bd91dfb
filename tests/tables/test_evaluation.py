"""Which evaluation of its runs a table shows: validation, test, merged, and a run that has none of the kind."""

from dataclasses import replace

import numpy as np
import pytest
from records import age, finished_fields

from peftbench.errors import UserError
from peftbench.runs.identity import run_id
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.runs.result import Evaluation, Section
from peftbench.sweeps.request import read_request
from peftbench.tables.build import build_table
from peftbench.tables.collect import NOT_EVALUATED, STALE, PlannedRun, collect
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
        table = shown(planned, read_spec("made", {**RAW, "split": split}, 2))
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


def test_a_row_shows_its_runs_with_layers_dropped_and_their_latency(planned):
    rows = [
        {"label": "unmerged", "overrides": ["method=adapter"]},
        {"label": "n = 2", "overrides": ["method=adapter"], "evaluation": {"dropped_layers": 2}},
    ]
    spec = read_spec("made", {**RAW, "columns": ["accuracy", "latency"], "rows": rows}, 2)
    runs = [replace(run, label=label) for run, label in zip(planned, ("unmerged", "n = 2") * 2, strict=True)]
    without = shown(runs, spec)
    assert [run.status for run in without.rows[1].runs] == [NOT_EVALUATED] * 2
    assert any("no scores on validation, 2 layers dropped" in note and "--drop 2" in note for note in without.notes)

    def latency(ratio):
        return {"settings": [{"batch": 1, "length": 32, "ratio": ratio, "ratio_low": ratio, "ratio_high": ratio}]}

    for run in runs[1::2]:
        record = Record(run.folder)
        own = record.read().evaluations[0]
        dropped = Evaluation(
            "validation", 40, {"accuracy": 0.7}, own.precision, own.data, dropped_layers=2, latency=latency(1.1)
        )
        record.add_evaluation(dropped, answers(28, 40), ["no", "yes"])
        record.update(latency=Section(latency(1.5)))
    table = shown(runs, spec)
    assert [row.cells["accuracy"].value for row in table.rows] == [75.0, 70.0]
    assert [row.cells["latency"].value for row in table.rows] == [1.5, 1.1]


def test_a_stale_run_is_stale_before_it_lacks_an_evaluation(planned):
    age(Record(planned[1].folder))
    spec = read_spec("made", RAW, 2)
    merged = replace(planned[1], evaluation=spec.evaluation_of(spec.rows[1]))
    assert collect([merged])[0].status == STALE
    assert collect([merged], use_stale=True)[0].status == NOT_EVALUATED


def test_the_line_decides_over_the_table():
    assert read_request(["table=smoke"]).spec.evaluation == EvaluationSpec("validation")
    request = read_request(["table=smoke", "table.split=test"])
    assert request.spec.evaluation == EvaluationSpec("test")
    assert {run.evaluation for run in request.planned} == {EvaluationSpec("test")}
    assert "table.split=test" in request.command
    lab = read_request(["table=lab/bottleneck", "model=minilm"]).spec
    assert lab.evaluation.split == "test" and lab.delta == 1
    test = read_spec("made", {**RAW, "split": "test"}, 1)
    assert str(test.evaluation) == "test" and str(test.evaluation_of(test.rows[1])) == "test, merged"


def test_a_task_without_a_labelled_test_split_is_shown_on_validation(planned):
    spec = read_spec("made", {**RAW, "rows": RAW["rows"][:1], "split": "test"}, 2)
    on_test = shown(planned[::2], spec)
    assert on_test.evaluation == "test" and "scores are on test; settings" in on_test.reading[0]
    for run in planned[::2]:
        record = Record(run.folder)
        record.finish(**finished_fields({"validation": {"accuracy": 0.75}}, {"validation": 40}))
    table = shown(planned[::2], spec)
    assert table.rows[0].cells["accuracy"].value == 75 and table.evaluation == "validation"
    assert "no labelled test split: scores are on validation" in table.reading[0]
    assert "n = 40 examples of validation" in subtitle(table) and not table.notes


def test_what_is_no_evaluation_is_refused():
    with pytest.raises(UserError, match="table=smoke: table.split=dev must be validation or test"):
        read_request(["table=smoke", "table.split=dev"])
    with pytest.raises(UserError, match="table.detla=2: a table has no setting 'detla'. Did you mean delta"):
        read_request(["table=smoke", "table.detla=2"])
    with pytest.raises(UserError, match="evaluation.split=test: this is called table.split=test now"):
        read_request(["table=smoke", "evaluation.split=test"])
    with pytest.raises(UserError, match="evaluation.split is called table.split now: `split: test` beside the rows"):
        read_spec("made", {**RAW, "evaluation": {"split": "test"}}, 1)
    for delta in (0, "wide", True, float("inf")):
        with pytest.raises(UserError, match=f"table.delta={delta} must be a number of points from 0.001"):
            read_spec("made", {**RAW, "delta": delta}, 1)
    with pytest.raises(UserError, match=r"a row: evaluation\.merged=2 must be true or false"):
        read_spec("made", {**RAW, "rows": [{**RAW["rows"][0], "evaluation": {"merged": 2}}]}, 1)
    for dropped in (-1, "two", True):
        with pytest.raises(UserError, match="a row: evaluation.dropped_layers=.* must be a number of layers"):
            read_spec("made", {**RAW, "rows": [{**RAW["rows"][0], "evaluation": {"dropped_layers": dropped}}]}, 1)
    with pytest.raises(UserError, match="evaluation: what is merged acts in every layer"):
        evaluation = {"dropped_layers": 1, "merged": True}
        read_spec("made", {**RAW, "rows": [{**RAW["rows"][0], "evaluation": evaluation}]}, 1)
    with pytest.raises(UserError, match="row 'linear probe': evaluation.dropped_layers, but head has no layers"):
        read_request(["table=smoke", "evaluation.dropped_layers=1"])
    with pytest.raises(UserError, match="row 'linear probe': evaluation.merged=true, but head cannot be merged"):
        read_request(["table=smoke", "evaluation.merged=true"])
    with pytest.raises(UserError, match="evaluation has no key 'spilt'"):
        read_spec("made", {**RAW, "evaluation": {"spilt": "test"}}, 1)

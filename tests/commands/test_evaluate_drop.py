"""`peftbench evaluate RUN --drop`: a run scored with its lowest layers left out, for one n or for each."""

import json
import shutil
from pathlib import Path

import pytest

from peftbench.commands import evaluate
from peftbench.errors import UserError
from peftbench.runs.record import Record


@pytest.fixture(scope="module")
def robust_run(train_tiny) -> Record:
    return train_tiny(
        "opinions", "method=adapter", "method.bottleneck=4", "method.drop=robust", "trainer.lr=0.01",
        "method.init_std=0.3", "measure.seconds=0", "measure.batches=[1]", "measure.lengths=[8]",
    )  # fmt: skip


@pytest.fixture
def record(robust_run, tmp_path) -> Record:
    return Record(shutil.copytree(robust_run.folder, tmp_path / robust_run.folder.name))


def evaluated(capsys, record: Record, *argv: str):
    assert evaluate.main([str(record.folder), "--device", "cpu", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_n_is_scored_in_one_evaluation_with_its_latency(record, capsys):
    none, one = evaluated(capsys, record, "--drop", "each", "--latency")
    assert (none["dropped_layers"], one["dropped_layers"]) == (0, 1)
    own = record.read().evaluation("validation")
    assert none["metrics"] == pytest.approx(own.metrics, rel=1e-5) and none["stored"] == "predictions.csv"
    assert one["metrics"]["loss"] != pytest.approx(own.metrics["loss"], rel=1e-4)
    (setting,) = one["latency"]["settings"]
    assert (setting["batch"], setting["length"]) == (1, 8)
    stored = record.read().evaluation("validation", dropped_layers=1)
    assert stored.metrics == one["metrics"] and stored.latency == one["latency"]
    assert record.predictions(stored).labels == record.predictions(own).labels
    again = evaluated(capsys, record, "--drop", "1")
    assert again["latency"] is None and again["metrics"] == one["metrics"]
    assert record.read().evaluation("validation", dropped_layers=1).latency == one["latency"], "what is measured stays"


def test_what_a_reader_sees(record, capsys):
    assert evaluate.main([str(record.folder), "--device", "cpu", "--drop", "0-1", "--latency"]) == 0
    header, none, one, stored = capsys.readouterr().out.splitlines()
    assert header.split() == ["layers", "dropped", "accuracy", "F1", "batch", "1", "of", "8", "tokens"]
    assert none.split()[0] == "0" and one.split()[0] == "1" and one.rstrip().endswith("×") and " ms, " in one
    assert stored == f"validation, 21 examples; 2 of 2 in the record of {record.folder.name}"
    assert evaluate.main([str(record.folder), "--device", "cpu", "--drop", "1"]) == 0
    assert "21 examples, layers dropped: 1" in capsys.readouterr().out


def test_predictions_of_one_n(record, capsys, tmp_path):
    path = tmp_path / "told.csv"
    assert evaluated(capsys, record, "--drop", "1", "--write", str(path))["predictions"] == str(path)
    stored = record.read().evaluation("validation", dropped_layers=1)
    assert path.read_text() == (record.folder / stored.predictions).read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--drop", "2"], "--drop 2 leaves no layer: this run's method acts up to layer 1, counted from 0"),
        (["--drop", "0-9"], "--drop 9 leaves no layer"),
        (["--drop", "0-99999999999999"], "--drop 99999999999999 leaves no layer"),
        (["--drop", "-1"], "--drop -1: say how many"),
        (["--drop", "some"], "--drop some: say how many of the lowest layers"),
        (["--drop", "1-0"], "--drop 1-0: say how many"),
        (["--drop", "1", "--merged"], "--drop with --merged: what is merged acts in every layer"),
        (["--drop", "each", "--write", "x.csv"], "--write takes the predictions of one number of layers"),
    ],
)
def test_a_mistake_is_one_line(argv, message, record):
    before = record.result_path.read_bytes()
    with pytest.raises(UserError) as caught:
        evaluate.main([str(record.folder), *argv])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert record.result_path.read_bytes() == before and not Path("x.csv").exists()


def test_a_method_without_layers_has_none_to_leave_out(tiny_run, train_tiny):
    with pytest.raises(UserError, match="--drop: lora has no layers to leave out, only adapter, adaptformer, "):
        evaluate.main([str(tiny_run.folder), "--drop", "1"])
    output = train_tiny("opinions", "method=adapter", "method.bottleneck=4", "method.position=output")
    with pytest.raises(UserError, match="--drop each: this run's method is in no layer"):
        evaluate.main([str(output.folder), "--drop", "each"])


def test_a_run_with_adapters_above_alone(train_tiny, capsys):
    upper = train_tiny("opinions", "method=pfeiffer", "method.bottleneck=4", "method.layers=1")
    assert [each["dropped_layers"] for each in evaluated(capsys, upper, "--drop", "each")] == [0]
    one = evaluated(capsys, upper, "--drop", "1")
    assert one["metrics"] == upper.read().evaluation("validation").metrics, "layer 0 had none anyway"

"""From a config to a measured record: what an error while measuring costs, and which runs are the same."""

import re
import shutil
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import PeftbenchError, UserError
from peftbench.runs.execute import execute_run
from peftbench.runs.find import find_runs
from peftbench.runs.pinned_config import pin_config, possible_folders
from peftbench.runs.record import Record
from peftbench.runs.result import Section, Status
from peftbench.training import devices

QUICK = ["measure.seconds=0.01", "measure.batches=[1]", "measure.lengths=[8]"]


@pytest.fixture
def line(tiny_model_dir: Path, tiny_data_dir: Path, tmp_path: Path) -> list[str]:
    model = shutil.copytree(tiny_model_dir, tmp_path / "model")
    splits = [f"task.splits.{name}={tiny_data_dir / 'opinions' / name}.csv" for name in ("train", "validation", "test")]
    settings = ["method=bitfit", "model=local", f"model.path={model}", "task=text_file", *splits, "task.max_length=16"]
    settings += ["trainer.epochs=2", "trainer.batch_size=24", "trainer.precision=fp32", "device=cpu", "threads=1"]
    return [*settings, "measure.latency=false", f"output_dir={tmp_path / 'outputs'}", *QUICK]


def train(line: list[str], *more: str) -> Record:
    config = resolve(compose([*line, *more]))
    result = execute_run(config, line)
    return Record(Path(config.output_dir) / config.experiment / result.id)


def no_training(*arguments: object, **more: object) -> None:
    raise AssertionError("it was trained again")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MemoryError("Cannot allocate memory"), Status.OOM, "out of memory: there is no room for the model"),
        (ValueError("odd"), Status.FAILED, "ValueError: odd (see "),
    ],
)
def test_what_ends_a_run_before_it_trains_is_recorded(line, monkeypatch, error, status, said, tmp_path: Path) -> None:
    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("peftbench.runs.prepare.load_task", broken)
    with pytest.raises(PeftbenchError, match=re.escape(said)) as caught:
        train(line)
    (run,) = find_runs(tmp_path)
    assert caught.value.exit_code == 1 and run.status == status and said in run.error
    assert type(error).__name__ in run.record.log_path.read_text()
    monkeypatch.undo()
    assert train(line).read().status == Status.FINISHED


def test_what_ends_a_run_begun_again_takes_nothing_of_it(line, monkeypatch, tmp_path: Path) -> None:
    record = train(line)
    monkeypatch.setattr("peftbench.runs.prepare.load_task", no_training)
    with pytest.raises(PeftbenchError, match="trained again"):
        train(line, "force=true")
    assert record.read().status == Status.FINISHED


def test_an_error_while_measuring_loses_nothing_and_is_said(line: list[str], monkeypatch, tmp_path: Path) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise RuntimeError("no clock\nat all")

    monkeypatch.setattr("peftbench.measuring.run.measure_latency", broken)
    with pytest.raises(PeftbenchError, match="latency could not be measured: RuntimeError: no clock") as caught:
        train(line, "measure.latency=true", "measure.switching=true")
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    (run,) = find_runs(tmp_path)
    assert run.status == Status.FINISHED and run.result.metrics["validation"]["accuracy"] > 0
    assert run.result.latency.error == "RuntimeError: no clock" and run.result.latency.result is None
    assert run.result.switching.result["bytes"] > 0
    assert run.record.predictions(run.result.evaluation("validation")) and (run.record.adapter_dir).is_dir()
    assert "no clock" in run.record.log_path.read_text()
    monkeypatch.undo()
    monkeypatch.setattr("peftbench.training.loop.fit", no_training)
    record = train(line, "measure.latency=true", "measure.switching=true")
    assert record.read().latency.result and record.read().latency.error is None
    assert record.read().switching == run.result.switching, "what was measured is not measured again"


def test_a_measurement_asked_of_a_finished_run_is_taken_without_training(line: list[str], monkeypatch, capsys) -> None:
    before = train(line).read()
    monkeypatch.setattr("peftbench.training.loop.fit", no_training)
    capsys.readouterr()
    after = train(line, "measure.latency=true").read()
    assert after.latency.result["settings"] and not before.latency
    assert replace(after, latency=before.latency) == before
    assert "measuring its latency" in capsys.readouterr().out
    train(line, "measure.latency=true")
    assert "finished already" in capsys.readouterr().out


def test_a_length_that_does_not_fit_is_refused_before_training_and_never_counts_as_measured(
    line: list[str], monkeypatch
) -> None:
    too_long = ["measure.latency=true", "measure.lengths=[1000]"]
    with pytest.raises(UserError, match=r"measure.lengths=\[1000\]: the model takes at most"):
        train(line, *too_long)
    record = train(line)
    with pytest.raises(UserError, match=r"measure.lengths=\[1000\]"):
        train(line, *too_long)
    record.update(latency=Section({"settings": []}))  # as former versions left it
    monkeypatch.setattr("peftbench.training.loop.fit", no_training)
    assert train(line, "measure.latency=true").read().latency.result["settings"]


def test_finishing_clears_an_earlier_error(line: list[str], monkeypatch) -> None:
    from peftbench.runs.observers import RecordHistory

    with monkeypatch.context() as patch:
        patch.setattr(RecordHistory, "on_epoch", lambda self, row: 1 / 0)
        with pytest.raises(PeftbenchError, match="ZeroDivisionError"):
            train(line)
    result = train(line).read()
    assert (result.status, result.error) == (Status.FINISHED, None)


def test_a_replaced_model_in_the_same_folder_is_another_run(line: list[str], monkeypatch, tmp_path: Path) -> None:
    from peftbench.runs.observers import RecordHistory

    first = train(line)
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    with monkeypatch.context() as patch:  # it does not go on from a checkpoint of the other model either
        write = RecordHistory.on_epoch
        patch.setattr(RecordHistory, "on_epoch", lambda self, row: write(self, row) if row["epoch"] < 2 else 1 / 0)
        with pytest.raises(PeftbenchError, match="ZeroDivisionError"):
            train(line)
    content[-2] ^= 2
    weights.write_bytes(content)
    third = train(line)
    assert third.folder != first.folder and len({run.id for run in find_runs(tmp_path)}) == 3
    assert third.read().status == Status.FINISHED
    assert third.read().origin.weights != first.read().origin.weights
    config = resolve(first.config())
    with pytest.raises(UserError, match=r"another model than the run was trained on \(its model\.safetensors differs"):
        pin_config(config)


def test_a_run_begun_again_by_force_goes_on_where_it_was_interrupted(line: list[str], monkeypatch, capsys) -> None:
    from peftbench.runs.observers import RecordHistory

    first = train(line)
    metrics = first.read().metrics
    write = RecordHistory.on_epoch

    def interrupted(self, row):
        write(self, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    full = first.read().time
    with monkeypatch.context() as patch:
        patch.setattr(RecordHistory, "on_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(line, "force=true")
    assert first.read().status == Status.INTERRUPTED
    capsys.readouterr()
    gone_on = train(line, "force=true").read()
    assert gone_on.metrics == metrics and gone_on.time.total > gone_on.time.train > 0
    assert len(gone_on.time.per_epoch) == len(full.per_epoch)
    assert "continuing behind step" in capsys.readouterr().out
    before = first.read().finished
    train(line, "force=true")
    assert "continuing" not in capsys.readouterr().out and first.read().finished != before


def test_a_model_replaced_between_two_runs_of_a_process_is_read_again(line: list[str], tmp_path: Path) -> None:
    train(line, "seed=1")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot load a model"):
        train(line, "seed=2")


def test_the_id_covers_the_precision_as_resolved(line: list[str], monkeypatch) -> None:
    def folders(*more: str) -> list[str]:
        config, found = possible_folders(resolve(compose([*line, *more])))
        assert config.trainer.precision in ("fp32", "bf16")
        return [folder.name for folder in found]

    fp32, bf16 = folders("trainer.precision=fp32"), folders("trainer.precision=bf16")
    assert len(fp32) == len(bf16) == 1 and fp32 != bf16
    for faster, expected in ((True, [*bf16, *fp32]), (False, [*fp32, *bf16])):
        monkeypatch.setattr(devices, "cpu_is_faster_in_bf16", lambda faster=faster: faster)
        assert folders("trainer.precision=auto") == expected


def test_what_the_last_epoch_has_scored_is_not_scored_again(line: list[str], monkeypatch) -> None:
    from peftbench.training import inference

    scored = []

    def logits_of(model: object, data: Sized, *more: object, before=inference.logits_of) -> object:
        scored.append(len(data))
        return before(model, data, *more)

    monkeypatch.setattr(inference, "logits_of", logits_of)
    record = train(line)
    assert scored == [21, 21, 9], "validation behind both epochs, test at the end"
    last = [row["validation"] for row in record.history() if "validation" in row][-1]
    assert record.read().metrics["validation"] == last


def test_the_record_says_where_and_in_what_it_was_trained(line: list[str]) -> None:
    record = train(line)
    environment = record.read().environment
    assert (environment.precision, environment.device_type, environment.threads) == ("fp32", "cpu", 1)
    assert record.config()["trainer"]["precision"] == "fp32"
    assert record.folder.name == record.read().id


def test_a_finished_run_with_a_damaged_file_is_not_shown_as_finished(line: list[str]) -> None:
    record = train(line)
    for path in (record.adapter_dir / "adapter.safetensors", record.predictions_path, record.history_path):
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            train(line)
        path.write_bytes(whole)
    train(line)


def test_a_regression_starts_at_the_mean_of_the_training_scores(train_tiny, tiny_data_dir: Path) -> None:
    record = train_tiny("scores", "method=head", "trainer.lr=1e-9", "trainer.epochs=1", "experiment=start")
    rows = (tiny_data_dir / "pairs" / "train.tsv").read_text().splitlines()[1:]
    scores = [float(row.split("\t")[-1]) for row in rows]
    bias = load_file(record.adapter_dir / "adapter.safetensors")["head.classifier.bias"]
    assert bias.item() == pytest.approx(np.mean(scores), abs=1e-4) and np.mean(scores) > 0.3

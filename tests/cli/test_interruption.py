"""Killed or interrupted, the same command goes on and ends with the record of an undisturbed run."""

import csv
import json
import shutil
import signal
import time
from pathlib import Path
from subprocess import PIPE

import forked
import pytest
from safetensors.numpy import load_file

from peftbench import cli

EPOCHS = 20


@pytest.fixture
def command(tiny_model_dir, tiny_data_dir):
    def build(outputs: Path) -> list[str]:
        opinions = tiny_data_dir / "opinions"
        return [
            "train", "method=adapter", "method.bottleneck=4",
            f"output_dir={outputs}", "model=local", f"model.path={tiny_model_dir}", "task=text_file",
            f"task.splits.train={opinions / 'train.csv'}", f"task.splits.validation={opinions / 'validation.csv'}",
            "task.max_length=32", "trainer.batch_size=4", f"trainer.epochs={EPOCHS}", "device=cpu", "threads=1",
            "measure.latency=false",
        ]  # fmt: skip

    return build


def _start(command: list[str]) -> forked.Popen:
    return forked.Popen(["-m", "peftbench", *command], stdout=PIPE, stderr=PIPE, text=True)


def _wait_for_epochs(outputs: Path, epochs: int, process: forked.Popen) -> None:
    """Wait until that many epochs stand in the history."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        for history in outputs.glob("*/*/history.jsonl"):
            if history.read_text().count('"validation"') >= epochs:
                return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def _record(outputs: Path) -> dict:
    (result,) = outputs.rglob("result.json")
    return json.loads(result.read_text())


def _lasting(outputs: Path) -> dict:
    """What must not depend on interruptions: scores, curve, predictions, trained tensors."""
    (result,) = outputs.rglob("result.json")
    folder = result.parent
    record = json.loads(result.read_text())
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for row in history:
        row.pop("seconds", None), row.pop("examples_per_second", None)
    tensors = load_file(folder / "adapter" / "adapter.safetensors")
    return {
        "record": {key: record[key] for key in ("status", "evaluations", "best", "parameters", "examples", "id")},
        "history": history,
        "predictions": list(csv.reader((folder / "predictions.csv").open())),
        "tensors": {name: tensor.tobytes() for name, tensor in tensors.items()},
        "files": sorted(file.name for file in folder.iterdir()),
    }


@pytest.mark.long
def test_killed_and_interrupted_runs_end_as_an_undisturbed_one(command, tmp_path, capsys):
    undisturbed, broken = tmp_path / "undisturbed", tmp_path / "broken"
    assert cli.main(command(undisturbed)) == 0

    process = _start(command(broken))
    _wait_for_epochs(broken, 3, process)
    process.kill()
    process.wait()
    assert _record(broken)["status"] == "running"

    process = _start(command(broken))
    _wait_for_epochs(broken, 9, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in error
    record = _record(broken)
    assert record["status"] == "interrupted" and "same command" in record["error"]

    process = _start(command(broken))
    _wait_for_epochs(broken, 15, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert _record(broken)["status"] == "interrupted"

    capsys.readouterr()
    assert cli.main(command(broken)) == 0
    assert "continuing behind step" in capsys.readouterr().out
    assert _lasting(broken) == _lasting(undisturbed)


def test_a_finished_run_is_not_trained_again_unless_forced(command, tmp_path, capsys):
    line = command(tmp_path)
    line[line.index(f"trainer.epochs={EPOCHS}")] = "trainer.epochs=1"
    assert cli.main(line) == 0
    first = _record(tmp_path)
    capsys.readouterr()
    assert cli.main(line) == 0
    assert "finished already" in capsys.readouterr().out and _record(tmp_path) == first
    assert cli.main([*line, "force=true"]) == 0
    forced = _record(tmp_path)
    assert forced["started"] > first["started"] and forced["evaluations"] == first["evaluations"]


@pytest.fixture
def masked_lm_dir(tiny_model_dir, tmp_path):
    """The tiny model's tokenizer and a tiny random BERT under its masked-language-model head."""
    from tiny import ARCHITECTURES
    from transformers import BertConfig, BertForMaskedLM

    folder = shutil.copytree(tiny_model_dir, tmp_path / "masked")
    BertForMaskedLM(BertConfig(**ARCHITECTURES["bert"])).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["fusion", "cloze"])
def test_killed_runs_of_what_differs_from_other_methods(method, command, tiny_method, masked_lm_dir, tmp_path, capsys):
    """A fusion draws layers and has dropout of its own; a cloze prompt trains vectors under another head."""
    changed = {
        "fusion": [*tiny_method("fusion"), "method.drop=robust"],
        "cloze": ["method=cloze", "method.template='{text} {soft:3} {mask}'", f"model.path={masked_lm_dir}"],
    }[method]

    def line(outputs: Path) -> list[str]:
        kept = [word for word in command(outputs) if not word.startswith("method")]
        return [*kept, *changed, "trainer.epochs=8", "trainer.lr=0.01"]

    undisturbed, broken = tmp_path / "undisturbed", tmp_path / "broken"
    assert cli.main(line(undisturbed)) == 0
    process = _start(line(broken))
    _wait_for_epochs(broken, 2, process)
    process.kill()
    process.wait()
    assert _record(broken)["status"] == "running"
    capsys.readouterr()
    assert cli.main(line(broken)) == 0
    assert "continuing behind step" in capsys.readouterr().out
    assert _lasting(broken) == _lasting(undisturbed)

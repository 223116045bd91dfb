"""A sweep of two tiny runs through a launcher, and what of it must not depend on disturbances."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

EPOCHS = 150
WORDS = ["sweep", "table=smoke"]  # two runs, of which the first comes first in the folder too


def sweep(outputs: Path, model: Path, data: Path, *overrides: str) -> list[str]:
    """Return the command that trains the tiny model twice."""
    opinions = data / "opinions"
    return [
        sys.executable, "-m", "peftbench", *WORDS,
        f"output_dir={outputs}", "experiment=cluster", "model=local", f"model.path={model}", "task=text_file",
        f"task.splits.train={opinions / 'train.csv'}", f"task.splits.validation={opinions / 'validation.csv'}",
        "task.max_length=32", "trainer.batch_size=4", f"trainer.epochs={EPOCHS}", "device=cpu", "threads=1",
        "measure.latency=false", *overrides,
    ]  # fmt: skip


def start(line: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def records(outputs: Path) -> list[Path]:
    """Return the folders of the records there are."""
    return sorted(path.parent for path in outputs.glob("cluster/*/result.json"))


def wait_for_epochs(outputs: Path, process: subprocess.Popen, runs: int = 2, epochs: int = 5) -> None:
    """Wait until the first run, or both, have that many epochs in their histories."""
    methods = ("head", "lora")[:runs]
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        histories = [path.read_text() for name in methods for path in outputs.glob(f"cluster/{name}-*/history.jsonl")]
        if len(histories) == runs and all(history.count('"validation"') >= epochs for history in histories):
            return
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate())


def kill_first_run(outputs: Path) -> None:
    """Kill the process that trains the first run, without a word to it."""
    os.kill(json.loads((records(outputs)[0] / "result.json").read_text())["pid"], signal.SIGKILL)


def statuses(outputs: Path) -> list[str]:
    """Return what the records say of their runs."""
    return [json.loads((folder / "result.json").read_text())["status"] for folder in records(outputs)]


def lasting(outputs: Path) -> list[dict[str, Any]]:
    """Return both runs' scores, curves, predictions and trained tensors, without times."""
    return [_lasting(folder) for folder in records(outputs)]


def _lasting(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "result.json").read_text())
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

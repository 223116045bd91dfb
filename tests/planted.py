"""Finished runs whose truth is planted: how many examples each gets right, and what it costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from records import finished_fields

from peftbench.runs.identity import run_id
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record

TASKS = {
    "mrpc": {"text": ["sentence1", "sentence2"], "metrics": ["accuracy", "f1"]},
    "cola": {"text": ["sentence"], "metrics": ["accuracy"]},
}


def plant(
    outputs: Path,
    method: dict[str, Any],
    accuracies: Sequence[float],
    *,
    task: str = "mrpc",
    share: float = 0.01,
    latency: float | None = None,
    merged: float | None = None,
    examples: int = 300,
    training_rows: int = 3668,
    trainer: dict[str, Any] | None = None,
    splits: Sequence[str] = ("validation",),
) -> list[Record]:
    """Write a finished run a seed, which gets `accuracies[seed]` of the examples right, the easy ones first.

    `share` is a fraction, `latency` (unmerged) and `merged` are ratios at batch 1.
    """
    records = []
    labels = np.arange(examples) % 2
    order = np.random.default_rng(0).permutation(examples)
    for seed, accuracy in enumerate(accuracies):
        config = {
            "method": method,
            "task": {"name": task, "source": "glue", "id": task, **TASKS[task]},
            "model": {"name": "minilm", "source": "hub", "id": "a/model"},
            "trainer": trainer or {},
            "seed": seed,
            "experiment": "planted",
        }
        settings = [f"method.{key}={value}" for key, value in method.items() if key != "name"]
        overrides = [f"method={method['name']}", *settings, f"task={task}", f"seed={seed}", "experiment=planted"]
        wrong = order[: round((1 - accuracy) * examples)]
        said = np.where(np.isin(np.arange(examples), wrong), 1 - labels, labels)
        record = Record.create(outputs / "planted" / run_id(config), config, overrides)
        told = Predictions(labels, said, np.eye(2)[said])
        record.write_predictions(dict.fromkeys(splits, told), ["no", "yes"])
        right = float(np.mean(said == labels))
        metrics = {split: dict.fromkeys(TASKS[task]["metrics"], right) for split in splits}
        sizes = {"train": training_rows, **dict.fromkeys(splits, examples)}
        timed = None if latency is None else {"settings": [_setting(latency, merged)], "device": "cpu", "threads": 1}
        record.finish(**finished_fields(metrics, sizes, share=share, data=task, latency=timed))
        records.append(record)
    return records


def _setting(latency: float, merged: float | None) -> dict[str, float]:
    setting = {"batch": 1, "length": 128}
    for name, ratio in (("ratio", latency), ("merged_ratio", merged)):
        if ratio is not None:
            setting |= {name: ratio, f"{name}_low": ratio - 0.01, f"{name}_high": ratio + 0.01}
    return setting

"""Score a finished run again: on any split, merged or not, with its latency."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from peftbench.config.schema import MeasureConfig, RunConfig, TaskConfig, TrainerConfig, fill
from peftbench.config.values import typed
from peftbench.errors import UserError
from peftbench.measuring.latency import measure_latency
from peftbench.runs.adapter import Description
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.runs.result import Evaluation
from peftbench.serving.load import check_mergeable, describe_run, inference, load_run_model
from peftbench.tasks.base import Task
from peftbench.tasks.text.read import load_task
from peftbench.terminal import error_console
from peftbench.training.devices import resolve_precision, use_device
from peftbench.training.inference import logits_of


@dataclass(frozen=True)
class ScoredRun:
    """What came of scoring a run; there is no evaluation where the labels are hidden."""

    evaluation: Evaluation | None
    predictions: Predictions
    classes: tuple[str, ...]
    precision: str
    device: str
    latency: dict[str, Any] | None


def score_run(
    record: Record,
    split: str,
    *,
    device: str,
    task_dir: str | None,
    batch_size: int | None,
    merged: bool,
    latency: bool,
    labels_needed: bool,
    working: Callable[[str], AbstractContextManager[Any]],
) -> ScoredRun:
    """Score a finished run on a split of its task.

    Args:
        record: of the run. split: any that the task has.
        device: auto, cpu, cuda or cuda:N. task_dir: where the task's files lie now, None: where they lay.
        batch_size: rows in one pass, None: the run's own. merged: fold the method into the backbone first.
        latency: measure it as well. labels_needed: hidden ones are an error.
        working: shows what is under way.

    Raises UserError where the run, its model, the split or its labels cannot be had.
    """
    place = use_device(device)
    description = describe_run(record)
    if merged:
        check_mergeable(description.method["name"])
    config = record.config()
    threads = typed(RunConfig, "threads", config.get("threads"), "threads")
    if threads is not None:
        torch.set_num_threads(threads)
    trainer = fill(TrainerConfig, config.get("trainer"), "trainer")
    task = read_task(description, split, task_dir)
    origin = record.read().origin
    if origin and origin.splits.get(split, task.checksums[split]) != task.checksums[split]:
        error_console.print(f"warning: {task.source} holds another {split} split than when this run was trained")
    if task.splits[split].labels is None and labels_needed:
        raise UserError(
            f"the labels of {task.name}'s {split} split are hidden: there is nothing to score;"
            " --write FILE.csv writes the predictions, `peftbench predict` answers any text"
        )
    with working("loading the model"):
        model = load_run_model(record, place)
        data = task.encode_split(split, model.backbone.sites.tokenizer)
    precision = resolve_precision(trainer.precision, place)
    with working(f"scoring {len(data):,} examples"), inference(model, precision, merged):
        logits = logits_of(model.backbone.model, data, batch_size or trainer.eval_batch_size, precision, place)
    predicted, probabilities = task.objective.read_out(logits)
    figures = None
    if latency:
        measure = fill(MeasureConfig, config["measure"], "measure")
        with working("measuring the latency"):
            figures = measure_latency(model.method, model.backbone, measure, precision)
    evaluation = None
    if data.labels is not None:
        metrics = dict(task.objective.score(task.metrics, logits, data.labels))
        evaluation = Evaluation(
            split,
            len(data),
            {**metrics},
            precision,
            task.checksums[split],
            merged,
            by_class=task.objective.by_class(predicted, task.splits[split].labels),
        )
    return ScoredRun(
        evaluation=evaluation,
        predictions=Predictions(task.splits[split].labels, predicted, probabilities),
        classes=task.labels,
        precision=precision,
        device=torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu",
        latency=figures,
    )


def read_task(description: Description, split: str, task_dir: str | None) -> Task:
    """Read one split of a run's task, with the classes as the run knew them; UserError where it cannot be had."""
    settings = {**description.task, "labels": description.labels}
    if task_dir is not None:
        if settings["source"] == "local":
            raise UserError("--task-dir: this run's task is made of files of your own, not of a folder")
        settings["dir"] = task_dir
    return load_task(fill(TaskConfig, settings, "task"), [split])

"""Score a finished run again: on any split, merged or not, with layers or adapters left out, with its latency."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from peftbench.config.fill import fill
from peftbench.config.schema import MeasureConfig, RunConfig
from peftbench.config.task import fill_task
from peftbench.config.values import typed
from peftbench.errors import PeftbenchError, TakenOverError, UserError
from peftbench.measuring.latency import measure_latency
from peftbench.methods.parts import PartsMethod
from peftbench.runs.adapter import Description
from peftbench.runs.lock import RunLock
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.runs.result import Evaluation
from peftbench.runs.scoring import evaluation_of, score_logits
from peftbench.serving.leave_out import check_drop, check_keep, dropped_counts, kept_counts
from peftbench.serving.load import RunModel, check_mergeable, describe_run, inference, load_run_model
from peftbench.tasks.base import Examples, Task
from peftbench.tasks.kinds import load_task
from peftbench.terminal import error_console, print_error
from peftbench.training.devices import resolve_precision, use_device, use_threads
from peftbench.training.inference import logits_of


@dataclass(frozen=True)
class ScoredRun:
    """What came of scoring a run under one set of conditions.

    Attributes:
        evaluation: to be stored in the record; None where the labels are hidden.
        predictions: of the whole split. classes: names by class number, empty for a regression.
        precision: that the run was scored in, fp32 or bf16. device: cpu, or the name of the CUDA device.
        dropped_layers, kept_adapters, observed: as in `Evaluation`.
        latency: as `measuring.latency` gives it; None where it was not measured.
    """

    evaluation: Evaluation | None
    predictions: Predictions
    classes: tuple[str, ...]
    precision: str
    device: str
    dropped_layers: int
    kept_adapters: int | None
    latency: dict[str, Any] | None
    observed: dict[str, Any] | None


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
    drop: str | None = None,
    keep: str | None = None,
) -> list[ScoredRun]:
    """Score a finished run on a split of its task: once, or once for each number that `drop` or `keep` says.

    Args:
        record: of the run. split: any that the task has.
        device: auto, cpu, cuda or cuda:N. task_dir: where the task's files lie now, None: where they lay.
        batch_size: rows in one pass, None: the run's own. merged: fold the method into the backbone first.
        latency: measure it as well. labels_needed: hidden ones are an error.
        working: shows what is under way.
        drop: how many of the lowest layers go without the method, see `serving.leave_out`; None: none do.
        keep: how many adapters of a fusion are kept at each place, those that weigh most on the training split; None:
            all are.

    Raises UserError where the run, its model, the split or its labels cannot be had, or its method cannot be scored so.
    """
    torch_device = use_device(device)
    description = describe_run(record)
    if drop is not None:
        check_drop(drop, description.method["name"], merged)
    if keep is not None:
        check_keep(keep, description.method["name"], drop)
    if merged:
        check_mergeable(description.method["name"])
    config = record.config()
    threads = typed(RunConfig, "threads", config.get("threads"), "threads")
    # the run may be of a machine with more cores
    use_threads(threads and min(threads, os.cpu_count() or 1))
    trainer = record.trainer()
    measure = fill(MeasureConfig, config["measure"], "measure")
    task = _same_task(record, description, split, task_dir)
    labels = task.splits[split].labels
    if labels is None and labels_needed:
        raise UserError(
            f"the labels of {task.name}'s {split} split are hidden: there is nothing to score;"
            " --write FILE.csv writes the predictions, `peftbench predict` answers any text"
        )
    with working("loading the model"):
        model = load_run_model(record, torch_device)
        sites = model.backbone.sites
        data = task.encode_split(split, sites)
    precision = resolve_precision(trainer.precision, torch_device)
    rows = batch_size or trainer.eval_batch_size
    dropping = [0] if drop is None else dropped_counts(drop, model.method.droppable_layers(sites))
    keeping: list[int | None] = [None]
    weights: dict[str, Any] = {}
    if keep is not None:
        keeping = [*kept_counts(keep, len(description.method["runs"]))]
        training = _same_task(record, description, "train", task_dir)
        examples = training.encode_split("train", sites)
        with working(f"weighing the adapters on {len(examples):,} training examples"):
            weights = _answers(model, examples, rows, precision, merged, torch_device)[1] or {}
    device_name = torch.cuda.get_device_name(torch_device) if torch_device.type == "cuda" else "cpu"
    scored = []
    for dropped, kept in product(dropping, keeping):
        reduced = f", {dropped} layers without the method" if dropped else ""
        model.method.drop(range(dropped))
        if isinstance(model.method, PartsMethod) and kept:
            reduced = f", adapters kept: {kept}"
            model.method.prune(kept, weights)
        with working(f"scoring {len(data):,} examples{reduced}"):
            logits, observed = _answers(model, data, rows, precision, merged, torch_device)
        figures = None
        if latency:
            with working(f"measuring the latency{reduced}"):
                figures = measure_latency(
                    model.method, model.backbone, measure, precision, data.timed_sizes(measure.lengths)
                )
        score = score_logits(task, logits, labels, observed)
        evaluation = None
        if labels is not None:
            reduced_latency = figures if dropped or kept else None  # the whole method's is a section of the record
            evaluation = evaluation_of(
                task,
                split,
                score,
                precision,
                merged=merged,
                dropped_layers=dropped,
                kept_adapters=kept,
                latency=reduced_latency,
            )
        scored.append(
            ScoredRun(
                evaluation, score.predictions, task.labels, precision, device_name, dropped, kept, figures, observed
            )
        )
    return scored


def _same_task(record: Record, description: Description, split: str, task_dir: str | None) -> Task:
    """Read one split of a run's task; print a warning where its data are not those that the run was trained with."""
    task = read_task(description, split, task_dir)
    origin = record.read().origin
    if origin and origin.splits.get(split, task.checksums[split]) != task.checksums[split]:
        error_console.print(f"warning: {task.source} holds another {split} split than when this run was trained")
    return task


def _answers(
    model: RunModel, data: Examples, rows: int, precision: str, merged: bool, device: torch.device
) -> tuple[torch.Tensor, dict[str, Any] | None]:
    """Return the logits, (examples, outputs), and what the method says of the examples."""
    with inference(model, precision, merged), model.method.observed() as observation:
        logits = logits_of(model.backbone.model, data, rows, precision, device)
    return logits, observation()


def store_scores(record: Record, scored: ScoredRun) -> str | None:
    """Put an evaluation into its run's record and return the file of its predictions, relative to the run's folder.

    Returns None where the labels are hidden, and where the record cannot be written, which is printed. Raises
    TakenOverError where another process takes the record over meanwhile.
    """
    evaluation = scored.evaluation
    if evaluation is None:
        return None
    known = record.read().evaluations
    from_training = [other for other in known if other.predictions == record.predictions_path.name]
    if any(other.conditions == evaluation.conditions for other in from_training):
        return record.predictions_path.name  # the run's own scores, which stay as they are
    try:
        with RunLock(record.folder):
            return record.add_evaluation(evaluation, scored.predictions, scored.classes).predictions
    except TakenOverError:
        raise
    except PeftbenchError as error:  # a record on a disk that is only read, for one
        print_error(f"not stored: {error}")
        return None


def read_task(description: Description, split: str, task_dir: str | None) -> Task:
    """Read one split of a run's task, with the classes as the run knew them; UserError where it cannot be had."""
    settings = {**description.task, "labels": description.labels}
    if task_dir is not None:
        if settings["source"] == "local" and settings.get("kind", "text") == "text":
            raise UserError("--task-dir: this run's task is made of files of your own, not of a folder")
        settings["dir"] = task_dir
    return load_task(fill_task(settings), [split])

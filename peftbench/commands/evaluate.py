"""`peftbench evaluate`: score a finished run again, on any split of its task."""

import argparse
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.arguments import Parser
from peftbench.commands.run_options import add_inference_arguments, add_run_arguments, chosen_run, working
from peftbench.errors import UserError
from peftbench.files import atomic_write, plain
from peftbench.runs.record import Predictions, Record
from peftbench.terminal import error_console

if TYPE_CHECKING:
    from peftbench.serving.adapter import Description
    from peftbench.tasks import Task


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench evaluate",
        description="Score a finished run again, on any split of its task.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--split",
        default="validation",
        help="validation, test, train or another that the task has (default: validation)",
    )
    parser.add_argument(
        "--task-dir", metavar="DIR", help="where train.tsv, dev.tsv and test.tsv lie now, if they have moved"
    )
    add_inference_arguments(parser)
    parser.add_argument("--latency", action="store_true", help="also measure the latency beside the bare backbone's")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE.csv",
        help="write each example's label, prediction and probabilities",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str]) -> int:
    """Score the run on the split and print its metrics; returns the exit code.

    Raises UserError where the run, its model, the split or its labels cannot be had.
    """
    arguments = build_parser().parse_args(argv)
    result = _evaluate(chosen_run(arguments), arguments)
    if arguments.json:
        print(json.dumps(plain(result), indent=2, ensure_ascii=False))
    else:
        _print(result)
    return 0


def _evaluate(record: Record, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return run, split, examples, metrics (None: hidden labels), device, merged, latency, predictions."""
    import torch

    from peftbench.config.schema import MeasureConfig, TrainerConfig, fill
    from peftbench.measuring.latency import measure_latency
    from peftbench.serving.load import check_mergeable, describe_run, inference, load_run_model
    from peftbench.training.devices import use_device
    from peftbench.training.inference import logits_of

    device = use_device(arguments.device)
    description = describe_run(record)
    if arguments.merged:
        check_mergeable(description.method["name"])
    config = record.config()
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    trainer = fill(TrainerConfig, config["trainer"], "trainer")
    task = _read_task(description, arguments)
    split = task.splits[arguments.split]
    trained_beside = record.read().get("data_splits") or {}
    if trained_beside.get(arguments.split, task.checksums[arguments.split]) != task.checksums[arguments.split]:
        error_console.print(
            f"warning: {task.source} holds another {arguments.split} split than when this run was trained"
        )
    if split.labels is None and arguments.write is None:
        raise UserError(
            f"the labels of {task.name}'s {arguments.split} split are hidden: there is nothing to score;"
            " --write FILE.csv writes the predictions, `peftbench predict` answers any text"
        )
    with working("loading the model"):
        model = load_run_model(record, device)
        data = task.encode_split(arguments.split, model.backbone.sites.tokenizer)
    size = arguments.batch_size or trainer.eval_batch_size
    with working(f"scoring {len(split):,} examples"), inference(model, trainer.precision, arguments.merged):
        logits = logits_of(model.backbone.model, data, size, trainer.precision, device)
    predicted, probabilities = task.objective.read_out(logits)
    if arguments.write is not None:
        _write(arguments.write, task, Predictions(split.labels, predicted, probabilities))
    latency = None
    if arguments.latency:
        measure = fill(MeasureConfig, config["measure"], "measure")
        with working("measuring the latency"):
            latency = measure_latency(model.method, model.backbone, measure, trainer.precision)
    return {
        "run": record.folder.name,
        "split": arguments.split,
        "examples": len(split),
        "by_class": None if data.labels is None else task.objective.by_class(predicted, split.labels),
        "metrics": None if data.labels is None else task.objective.score(task.metrics, logits, data.labels),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "merged": arguments.merged,
        "latency": latency,
        "predictions": arguments.write,
    }


def _read_task(description: "Description", arguments: argparse.Namespace) -> "Task":
    """Read the one split, with the classes as the run knew them."""
    from peftbench.config.schema import TaskConfig, fill
    from peftbench.tasks import load_task

    settings = {**description.task, "labels": description.labels}
    if arguments.task_dir is not None:
        if settings["source"] == "local":
            raise UserError("--task-dir: this run's task is made of files of your own, not of a folder")
        settings["dir"] = arguments.task_dir
    return load_task(fill(TaskConfig, settings, "task"), [arguments.split])


def _write(path: Path, task: "Task", told: Predictions) -> None:
    """Write index, label, prediction by name, and one column of probabilities a class."""

    def named(value: Any) -> Any:
        return task.labels[value] if task.labels else value

    labels = ["" if told.labels is None else named(label) for label in told.labels or told.predictions]
    probabilities = [[]] * len(labels) if told.probabilities is None else told.probabilities
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "label", "prediction", *task.labels])
        for index, prediction in enumerate(told.predictions):
            writer.writerow([index, labels[index], named(prediction), *probabilities[index]])


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from peftbench.runs.report import MOST_CLASSES_SHOWN, class_table, format_latency, score_cell
    from peftbench.terminal import metric_name, print_table

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    merged = ", merged" if result["merged"] else ""
    count = f"{result['split']}, {result['examples']:,} examples{merged}"
    by_class = result["by_class"]
    classes = len(by_class["names"]) if by_class else 0
    for name, value in (result["metrics"] or {}).items():
        if name != "loss":
            table.add_row(metric_name(name, classes), score_cell(name, value, count))
    for setting in (result["latency"] or {}).get("settings", []):
        table.add_row("latency", format_latency(setting))
    if result["predictions"] is not None:
        table.add_row("predictions", Text.assemble(str(result["predictions"]), (f"  {count}", "dim")))
    table.add_row("run", result["run"])
    print_table(table)
    if by_class and classes <= MOST_CLASSES_SHOWN:
        print_table(class_table(result["split"], by_class))

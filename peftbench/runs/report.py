"""What is printed of a run when it starts and when it has ended."""

import os
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from peftbench.runs.record import Record
from peftbench.runs.result import Memory
from peftbench.terminal import console, error_console, format_duration, format_metric, metric_name

if TYPE_CHECKING:
    from peftbench.tasks.base import Task

SHOWN_SPLIT = "validation"
MOST_CLASSES_SHOWN = 6  # in a confusion matrix
MOST_CLASSES_LISTED = 30
DATA_IS_DESCRIBED = "PEFTBENCH_DATA_IS_DESCRIBED"  # a variable of the environment
_reported: set[str] = set()  # checksums of the data that this process has described
remarked: set[str] = set()  # what this process, or another of the sweep, has said of methods


def report_job(number: int, overrides: list[str], total: int | None, seconds_left: float | None) -> None:
    """Head one run of several: which it is, of how many and how long all will still take where that is known."""
    head = f"run {number}" + (f" of {total}" if total else "")
    left = "" if seconds_left is None else f", about {format_duration(seconds_left)} left"
    console.print(Text.assemble((f"\n{head}{left}", "bold"), f"  {' '.join(overrides)}"))


def report_data(task: "Task", warnings: list[str]) -> None:
    """Print the size and labels of each split, and the data's warnings; once in a process for the same data.

    Nothing is printed where the variable `DATA_IS_DESCRIBED` says that another process of the sweep has done it.
    """
    if task.checksum in _reported or os.environ.get(DATA_IS_DESCRIBED):
        return
    _reported.add(task.checksum)
    width = max(map(len, task.splits))
    for name, split in task.splits.items():
        labels = "labels hidden" if split.labels is None else task.objective.describe(split.labels)
        console.print(f"{name:<{width}}  {len(split):,} examples: {labels}", style="dim", markup=False)
    for warning in warnings:
        _warn(warning)


def report_remarks(remarks: list[str]) -> None:
    """Print what the user should know of a method on a model; the same words once."""
    for remark in remarks:
        if remark not in remarked:
            remarked.add(remark)
            _warn(remark)


def _warn(text: str) -> None:
    error_console.print(f"warning: {text}", markup=False)


def report_finished(record: Record) -> None:
    """Say that a run was there already, with its scores."""
    console.print("this run is finished already; force=true trains it again", style="dim")
    report_result(record)


def report_interrupted(record: Record, reason: str) -> None:
    """Say what is left of an interrupted run."""
    error_console.print(f"peftbench: {reason}; record {record.folder}")


def report_result(record: Record) -> None:
    """Print a finished run's scores, parameter share, latency, time, memory and where its record lies."""
    result = record.read()
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    scored = [evaluation for split in result.metrics if (evaluation := result.evaluation(split))]
    for evaluation in scored:
        classes = len(evaluation.by_class["names"]) if evaluation.by_class else 0
        for name, value in evaluation.metrics.items():
            if name != "loss":
                count = f"{evaluation.split}, {evaluation.examples:,} examples"
                table.add_row(metric_name(name, classes), score_cell(name, value, count))
    if counts := result.parameters:
        table.add_row(
            "trained",
            f"{counts.method:,} parameters, {100 * counts.share_method:.3g} % of the backbone's"
            f" {counts.backbone:,}; head {counts.head:,}",
        )
    for setting in (result.latency.result or {}).get("settings", []):
        table.add_row("latency", format_latency(setting))
    if times := result.time:
        speed = f"{times.train:.0f} s training ({times.examples_per_second:.0f} examples/s)"
        table.add_row("time", f"{speed if times.per_epoch else 'nothing to train'}, {times.total:.0f} s in all")
    if result.memory and (memory := _memory(result.memory)):
        table.add_row("memory", memory)
    table.add_row("record", str(record.folder))
    console.print(table)
    shown = result.evaluation(SHOWN_SPLIT)
    if shown and shown.by_class and is_shown(shown.by_class):
        console.print(class_table(shown.split, shown.by_class))


def score_cell(metric: str, value: float | None, count: str) -> Text:
    """Return a score in bold and, dimmed, what it was computed on."""
    return Text.assemble((format_metric(metric, value), "bold"), (f"  {count}", "dim"))


def is_shown(by_class: dict[str, Any]) -> bool:
    """Tell whether there are few enough classes to show the scores of each."""
    return len(by_class["names"]) <= (MOST_CLASSES_SHOWN if "f1" in by_class else MOST_CLASSES_LISTED)


def class_table(split: str, by_class: dict[str, Any]) -> Table:
    """Return a table with a row for each class: its row of the confusion matrix and its F1, or its IoU or AP alone."""
    if "f1" not in by_class:
        return _scores_by_class(split, by_class)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(Text(f"{split}: true \\ predicted"))
    for name in by_class["names"]:
        table.add_column(Text(name), justify="right")
    table.add_column("F1", justify="right")
    for name, counts, f1 in zip(by_class["names"], by_class["confusion"], by_class["f1"], strict=True):
        table.add_row(Text(name), *(f"{count:,}" for count in counts), format_metric("f1", f1))
    return table


def _scores_by_class(split: str, by_class: dict[str, Any]) -> Table:
    metrics = [key for key in by_class if key not in ("names", "confusion")]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(Text(f"{split}: class"))
    for metric in metrics:
        table.add_column(metric_name(metric), justify="right")
    for name, *scores in zip(by_class["names"], *(by_class[metric] for metric in metrics), strict=True):
        table.add_row(Text(name), *map(format_metric, metrics, scores))
    return table


def format_latency(setting: dict[str, Any]) -> str:
    """Write one latency setting as a sentence."""
    merged = f", merged {setting['merged_ratio']:.2f} ×" if setting.get("merged_ratio") else ""
    return (
        f"{setting['method_ms']['median']:.1f} ms at batch {setting['batch']} of {setting['length']} tokens,"
        f" {setting['ratio']:.2f} × the bare backbone{merged}"
    )


def _memory(memory: Memory) -> str:
    places = ((memory.device_peak, " on the device"), (memory.host_peak, ""))
    return ", ".join(f"{peak / 2**20:,.0f} MiB{where} at most" for peak, where in places if peak)

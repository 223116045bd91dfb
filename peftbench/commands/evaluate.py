"""`peftbench evaluate`: score a finished run again, on any split of its task, and with layers left out."""

import argparse
from pathlib import Path
from typing import Any

from peftbench.arguments import Parser
from peftbench.commands.fusion_weights import check_is_fusion, draw_weights, print_weights
from peftbench.commands.run_options import add_inference_arguments, add_run_arguments, chosen_run, working_on_stderr
from peftbench.errors import UserError
from peftbench.files import plain
from peftbench.runs.predictions import write_predictions
from peftbench.runs.record import Record
from peftbench.runs.result import left_out
from peftbench.terminal import format_metric, metric_name, print_as_json, print_table


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
        help="validation, test, train or another split of the task (default: validation)",
    )
    parser.add_argument(
        "--task-dir",
        metavar="DIR",
        help="new location of the task's data (train.tsv, dev.tsv, test.tsv, or image folders), if it has moved",
    )
    add_inference_arguments(parser)
    parser.add_argument(
        "--drop",
        metavar="N",
        help="remove the method from the lowest N layers (AdapterDrop): 3, a range 0-5, a list 0,3,5, or each",
    )
    parser.add_argument(
        "--keep-adapters",
        metavar="K",
        help="at each position of a fusion, keep only the K adapters with the largest weights there on the training"
        " split: 2, a range 1-3, a list, or each",
    )
    parser.add_argument("--latency", action="store_true", help="also measure latency, next to the bare backbone's")
    parser.add_argument(
        "--fusion-weights",
        action="store_true",
        help="also show the mean weight of each adapter in a fusion, and plot it in the run's folder",
    )
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE.csv",
        help="also write each example's label, prediction and probabilities",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str]) -> int:
    """Score the run on the split, store that in its record and print it; returns the exit code.

    Raises UserError where the run, its model, the split or its labels cannot be had.
    """
    arguments = build_parser().parse_args(argv)
    results = _evaluate(chosen_run(arguments), arguments)
    several = _asks_for_several(arguments)
    if arguments.json:
        print_as_json(plain(results if several else results[0]), indent=2)
    elif several:
        _print_each(results)
    else:
        _print(results[0])
    return 0


def _asks_for_several(arguments: argparse.Namespace) -> bool:
    counts = (arguments.drop, arguments.keep_adapters)
    return any(count is not None and not count.isdecimal() for count in counts)


def _evaluate(record: Record, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Score the run; return what is printed, one dictionary for each number of dropped layers or kept adapters.

    Its metrics are None where the labels are hidden.
    """
    from peftbench.serving.evaluate import score_run, store_scores

    if arguments.write is not None and _asks_for_several(arguments):
        raise UserError(f"--write takes the predictions of one number of {_several(arguments)}")
    if arguments.fusion_weights:
        check_is_fusion(record)
        if _asks_for_several(arguments):
            raise UserError(f"--fusion-weights are of one number of {_several(arguments)}")
    scored_runs = score_run(
        record,
        arguments.split,
        device=arguments.device,
        task_dir=arguments.task_dir,
        batch_size=arguments.batch_size,
        merged=arguments.merged,
        latency=arguments.latency,
        labels_needed=arguments.write is None,
        working=working_on_stderr,
        drop=arguments.drop,
        keep=arguments.keep_adapters,
    )
    if arguments.write is not None:
        write_predictions(arguments.write, {arguments.split: scored_runs[0].predictions}, scored_runs[0].classes)
    shown = arguments.fusion_weights
    return [
        {
            "run": record.folder.name,
            "split": arguments.split,
            "examples": len(scored.predictions.predictions),
            "metrics": scored.evaluation and scored.evaluation.metrics,
            "by_class": scored.evaluation and scored.evaluation.by_class,
            "precision": scored.precision,
            "device": scored.device,
            "merged": arguments.merged,
            "dropped_layers": scored.dropped_layers,
            "kept_adapters": scored.kept_adapters,
            "latency": scored.latency,
            "predictions": arguments.write,
            "stored": store_scores(record, scored),
            "conditions": (conditions := [arguments.split, *left_out(scored.dropped_layers, scored.kept_adapters)]),
            "fusion_weights": scored.observed if shown else None,
            "plot": draw_weights(record, scored.observed, conditions) if shown else None,
        }
        for scored in scored_runs
    ]


def _several(arguments: argparse.Namespace) -> str:
    if arguments.keep_adapters is not None:
        return f"adapters, not of --keep-adapters {arguments.keep_adapters}"
    return f"layers, not of --drop {arguments.drop}"


def _print(result: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from peftbench.runs.report import class_table, format_latency, is_shown, score_cell

    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    changed = ", merged" if result["merged"] else ""
    if result["dropped_layers"]:
        changed = f", layers dropped: {result['dropped_layers']}"
    if result["kept_adapters"]:
        changed = f", adapters kept: {result['kept_adapters']}"
    count = f"{result['split']}, {result['examples']:,} examples{changed}"
    by_class = result["by_class"]
    classes = len(by_class["names"]) if by_class else 0
    for name, value in (result["metrics"] or {}).items():
        if name != "loss":
            table.add_row(metric_name(name, classes), score_cell(name, value, count))
    for setting in (result["latency"] or {}).get("settings", []):
        table.add_row("latency", format_latency(setting))
    if result["stored"]:
        table.add_row("stored", f"{result['stored']} in the run's record")
    if result["predictions"] is not None:
        table.add_row("predictions", Text.assemble(str(result["predictions"]), (f"  {count}", "dim")))
    if result["plot"]:
        table.add_row("plot", f"{result['plot']} in the run's record")
    table.add_row("run", result["run"])
    print_table(table)
    if by_class and is_shown(by_class):
        print_table(class_table(result["split"], by_class))
    if result["fusion_weights"]:
        print_weights(result["fusion_weights"], result["conditions"])


def _print_each(results: list[dict[str, Any]]) -> None:
    """Print one line for each number of dropped layers or kept adapters."""
    from rich.table import Table

    first = results[0]
    classes = len(first["by_class"]["names"]) if first["by_class"] else 0
    metrics = [name for name in first["metrics"] or {} if name != "loss"]
    settings = (first["latency"] or {}).get("settings", [])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    counted = "dropped_layers" if first["kept_adapters"] is None else "kept_adapters"
    table.add_column("layers dropped" if counted == "dropped_layers" else "adapters kept", justify="right")
    for name in metrics:
        table.add_column(metric_name(name, classes), justify="right")
    for setting in settings:
        table.add_column(f"batch {setting['batch']} of {setting['length']} tokens", justify="right")
    for result in results:
        cells = [format_metric(name, result["metrics"][name]) for name in metrics]
        for setting in (result["latency"] or {}).get("settings", []):
            cells.append(f"{setting['method_ms']['median']:.1f} ms, {setting['ratio']:.2f} ×")
        table.add_row(str(result[counted]), *cells)
    print_table(table)
    stored = sum(result["stored"] is not None for result in results)
    print(
        f"{first['split']}, {first['examples']:,} examples; {stored} of {len(results)} in the record of {first['run']}"
    )

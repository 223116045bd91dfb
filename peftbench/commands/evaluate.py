"""`peftbench evaluate`: score a finished run again, on any split of its task."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.arguments import Parser
from peftbench.commands.run_options import add_inference_arguments, add_run_arguments, chosen_run, working
from peftbench.errors import PeftbenchError, TakenOverError
from peftbench.files import plain
from peftbench.runs.predictions import write_predictions
from peftbench.runs.record import Record
from peftbench.terminal import print_error

if TYPE_CHECKING:
    from peftbench.serving.evaluate import ScoredRun


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
    """Score the run on the split, store that in its record and print it; returns the exit code.

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
    """Return run, split, examples, metrics (None: hidden labels), device, merged, latency, predictions, stored."""
    from peftbench.serving.evaluate import score_run

    scored = score_run(
        record,
        arguments.split,
        device=arguments.device,
        task_dir=arguments.task_dir,
        batch_size=arguments.batch_size,
        merged=arguments.merged,
        latency=arguments.latency,
        labels_needed=arguments.write is None,
        working=working,
    )
    if arguments.write is not None:
        write_predictions(arguments.write, {arguments.split: scored.predictions}, scored.classes)
    return {
        "run": record.folder.name,
        "split": arguments.split,
        "examples": len(scored.predictions.predictions),
        "metrics": scored.evaluation and scored.evaluation.metrics,
        "by_class": scored.evaluation and scored.evaluation.by_class,
        "precision": scored.precision,
        "device": scored.device,
        "merged": arguments.merged,
        "latency": scored.latency,
        "predictions": arguments.write,
        "stored": _store(record, scored),
    }


def _store(record: Record, scored: "ScoredRun") -> str | None:
    """Put the evaluation into the record; return the file of its predictions, None where it is not stored."""
    from peftbench.runs.lock import RunLock

    evaluation = scored.evaluation
    if evaluation is None:
        return None
    known = record.read().evaluations
    own = [other for other in known if other.predictions == record.predictions_path.name]
    if any(other.conditions == evaluation.conditions for other in own):
        return record.predictions_path.name  # the run's own scores, which stay as they are
    try:
        with RunLock(record.folder):
            return record.add_evaluation(evaluation, scored.predictions, scored.classes).predictions
    except TakenOverError:
        raise
    except PeftbenchError as error:  # a record on a disk that is only read, for one
        print_error(f"not stored: {error}")
        return None


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
    if result["stored"]:
        table.add_row("stored", f"{result['stored']} in the run's record")
    if result["predictions"] is not None:
        table.add_row("predictions", Text.assemble(str(result["predictions"]), (f"  {count}", "dim")))
    table.add_row("run", result["run"])
    print_table(table)
    if by_class and classes <= MOST_CLASSES_SHOWN:
        print_table(class_table(result["split"], by_class))

"""Options that several commands take: which run, where runs lie, device, precision and batch size."""

import argparse
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from peftbench.errors import UserError
from peftbench.runs.find import load_run
from peftbench.runs.record import Record

_RUN = "a finished run: its folder, its id, the start of the id, or its hash"


def add_run_arguments(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add RUN, --output-dir and --experiment; `options` are further ones of argparse for RUN."""
    parser.add_argument("run", metavar="RUN", help=_RUN, **options)
    add_records_arguments(parser)


def add_records_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --output-dir and --experiment: where runs are looked for."""
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="folder with the run records (default: outputs)"
    )
    parser.add_argument("--experiment", help="only look for the run in this experiment")


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA if available), cpu, cuda or cuda:N (default: auto)"
    )


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """Add --precision, for several runs that answer together."""
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        help="precision for several runs (default: the one they were all trained in)",
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --device, --batch-size and --merged."""
    add_device_argument(parser)
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="rows per forward pass (default: the run's own)"
    )
    parser.add_argument(
        "--merged",
        action="store_true",
        help="merge the method into the backbone's weights first; methods that cannot be merged are refused",
    )


def chosen_run(arguments: argparse.Namespace) -> Record:
    """Return the record that the arguments name; UserError with the nearest where there is none."""
    return load_run(arguments.run, records_dir(arguments))


def records_dir(arguments: argparse.Namespace) -> Path:
    """Return the folder that the arguments say runs are looked for in."""
    folder: Path = arguments.output_dir / (arguments.experiment or "")
    return folder


def find_task_runs(words: list[str], folder: Path) -> dict[str, Record]:
    """Return the runs that words such as `TASK=RUN` name, by task; `RUN` alone stands for the task it was trained on.

    Raises UserError for a name twice and for a run that is not there or has not finished.
    """
    from peftbench.serving.load import describe_run

    records: dict[str, Record] = {}
    for word in words:
        name, equals, run = word.partition("=")
        if not equals or "/" in name:  # of a folder
            name, run = "", word
        record = load_run(run, folder)
        name = name or str(describe_run(record).task["name"])
        if name in records:
            raise UserError(f"two runs are named {name}: name each by a task of its own, TASK={run}")
        records[name] = record
    return records


def working_on_stderr(what: str) -> AbstractContextManager[Any]:
    """Show what takes its time inside the block; standard output stays free for the command's answer."""
    from peftbench.terminal import error_console, working

    return working(what, error_console)


def positive(text: str) -> int:
    """Read a number of 1 or more from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be 1 or more")
    return value


positive.__name__ = "whole number"  # argparse names the type in its error

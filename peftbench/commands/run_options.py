"""What `evaluate`, `export` and `predict` share: the run, how its model computes, what is under way."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftbench.runs.find import load_run
from peftbench.runs.record import Record


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RUN and where it is looked for."""
    parser.add_argument(
        "run", metavar="RUN", help="a finished run: its folder, its id, the start of the id, or its hash"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="where the records lie (default: outputs)"
    )
    parser.add_argument("--experiment", help="look for the run in this experiment only")


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how the model computes: device, batch size, merged or not."""
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA where there is one), cpu, cuda or cuda:N (default: auto)"
    )
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="rows in one pass (default: the run's own)")
    parser.add_argument(
        "--merged", action="store_true", help="fold the method into the backbone's weights first (ia3, lora)"
    )


def chosen_run(arguments: argparse.Namespace) -> Record:
    """Return the record that the arguments name; UserError with the nearest where there is none."""
    return load_run(arguments.run, arguments.output_dir / (arguments.experiment or ""))


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show on a terminal what is under way inside the block; standard output stays free for the answer."""
    from peftbench.terminal import error_console

    if not error_console.is_terminal:
        yield
        return
    with error_console.status(text):
        yield


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be 1 or more")
    return value


_positive.__name__ = "whole number"  # argparse names the type in its error

"""`peftbench audit`: which differences stand in somebody's results, and which cannot be told."""

import argparse
import math
import shlex
from pathlib import Path

from peftbench.arguments import Parser, whole_number
from peftbench.audit.build import build_audit
from peftbench.audit.read import read_evidence
from peftbench.commands.table_output import add_output_options, check_output, put_out
from peftbench.errors import UserError
from peftbench.tables.verdicts import LEAST_DELTA


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench audit",
        description="Judge results measured by others: which systems differ, and where this cannot be told.\n"
        "If per-example scores are available, systems are compared on the same examples.",
        epilog=_FORMATS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a CSV file or a folder, see below")
    parser.add_argument("--metric", help="which score to use, if there are several (default: the first)")
    parser.add_argument("--task", help="which lm-evaluation-harness task, if there are several (default: the first)")
    parser.add_argument("--examples", metavar="N", help="number of examples behind peft's results (default: inferred)")
    parser.add_argument(
        "--delta",
        default="1",
        metavar="POINTS",
        help="the largest difference to call not different (default: 1)",
    )
    add_output_options(parser)
    return parser


_FORMATS = """
PATH is one of
  scores.csv   system,seed,example,correct (or score): one row per example; or, without per-example scores,
               system,seed,score,examples (their number), and sd over them unless scores are fractions correct
  a folder     samples_*.jsonl from lm-evaluation-harness (--log_samples), one folder per model;
               `seed0`, `seed1` … in folder names mark the seeds of one model
  a folder     *.json from Hugging Face peft's method comparison, such as method_comparison/MetaMathQA/results
Higher scores are better. Without seeds, each system has a single run.
"""


def main(argv: list[str]) -> int:
    """Print the audit, or write it to a file; returns the exit code.

    Raises UserError for an unknown format, and for results that cannot be judged.
    """
    arguments = build_parser().parse_args(argv)
    check_output(arguments, arguments.path)
    delta = _points(arguments.delta)
    evidence = read_evidence(
        arguments.path,
        task=arguments.task,
        metric=arguments.metric,
        examples=whole_number("--examples", arguments.examples),
    )
    put_out(build_audit(evidence, delta, f"peftbench audit {shlex.join(argv)}"), arguments)
    return 0


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= LEAST_DELTA):
        raise UserError(f"--delta {text} must be a number of points from {LEAST_DELTA}, such as 1")
    return value

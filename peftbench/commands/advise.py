"""`peftbench advise`: which method, and which size of it, for a task and within limits; trains nothing."""

import argparse
from pathlib import Path

from peftbench.advice.advise import Query, advise
from peftbench.advice.comparison import task_type
from peftbench.advice.lab import NO_DECISION_TABLES
from peftbench.advice.limits import Limits
from peftbench.advice.plain import plain_advice
from peftbench.advice.terminal import to_terminal
from peftbench.arguments import Parser, whole_number
from peftbench.commands.limit_options import latency_ratio, mebibytes, percent
from peftbench.config.groups import read_group
from peftbench.terminal import print_as_json, print_table

FORMATS = ("json",)


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench advise",
        description="Suggest a method and its size: from your own finished runs if they compare methods on several"
        " seeds, otherwise from the measured tables included with peftbench. Nothing is trained.",
    )
    types = task_types()
    parser.add_argument(
        "--task-type",
        choices=types,
        metavar="TYPE",
        help=f"{', '.join(types)} (default: any text type, or any that your runs have)",
    )
    parser.add_argument("--size", metavar="ROWS", help="number of training rows; the closest evidence is used")
    parser.add_argument("--memory", metavar="SIZE", help="limit on training memory and total weights, e.g. 2G or 900M")
    parser.add_argument(
        "--latency",
        metavar="RATIO",
        help="limit on latency at batch size 1, relative to the bare backbone, e.g. 1.05",
    )
    parser.add_argument(
        "--share", metavar="PERCENT", help="limit on trained parameters, in percent of the backbone's, e.g. 1"
    )
    parser.add_argument(
        "--tasks", metavar="N", help="tasks sharing one backbone; share and weights are their totals (default: 1)"
    )
    parser.add_argument("--format", choices=FORMATS, help="json: all figures (default: terminal output)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="folder with your run records (default: outputs)"
    )
    return parser


def main(argv: list[str]) -> int:
    """Print the advice; returns the exit code.

    Raises UserError for a malformed limit, an unknown type of task, and where no method keeps to the limits.
    """
    arguments = build_parser().parse_args(argv)
    limits = Limits(
        memory=mebibytes("--memory", arguments.memory),
        latency=latency_ratio("--latency", arguments.latency),
        share=percent("--share", arguments.share),
        tasks=whole_number("--tasks", arguments.tasks) or 1,
    )
    query = Query(limits, arguments.task_type, whole_number("--size", arguments.size))
    advice = advise(query, arguments.output_dir)
    if arguments.format == "json":
        print_as_json(plain_advice(advice, limits), indent=2)
    else:
        print_table(to_terminal(advice, limits, NO_DECISION_TABLES))
    return 0


def task_types() -> list[str]:
    """Return the types of the tasks there are."""
    return sorted({task_type(config) for config in read_group("task")})

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
        description="Say which method to take, and which size of it: from your own finished runs where there are two"
        " methods to compare, else from the measured tables that come with peftbench. Nothing is trained.",
    )
    types = task_types()
    parser.add_argument(
        "--task-type",
        choices=types,
        metavar="TYPE",
        help=f"{', '.join(types)} (default: any of texts, or of your runs)",
    )
    parser.add_argument("--size", metavar="ROWS", help="training rows of your task: the nearest evidence is taken")
    parser.add_argument("--memory", metavar="SIZE", help="at most, e.g. 2G or 900M: of training, and of all weights")
    parser.add_argument("--latency", metavar="RATIO", help="at most, at batch 1, over the bare backbone's, e.g. 1.05")
    parser.add_argument("--share", metavar="PERCENT", help="at most, of the backbone's parameters, e.g. 1")
    parser.add_argument("--tasks", metavar="N", help="tasks on one backbone: share and weights are of all (default: 1)")
    parser.add_argument("--format", choices=FORMATS, help="json: all figures (default: the terminal's)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="where your records lie (default: outputs)"
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

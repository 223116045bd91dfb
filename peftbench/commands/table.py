"""`peftbench table`: a table from the records there are; trains nothing."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from peftbench.arguments import Parser
from peftbench.config.quoting import quote_free_text
from peftbench.errors import UserError
from peftbench.files import atomic_write
from peftbench.sweeps.request import TableRequest, read_request
from peftbench.sweeps.spread import varied_runs
from peftbench.tables.build import build_table
from peftbench.tables.collect import Found, collect
from peftbench.tables.export.formats import FORMATS, TEXTS, check_formats, write_table
from peftbench.tables.export.spread import to_terminal as spread_to_terminal
from peftbench.tables.export.terminal import to_terminal
from peftbench.tables.spread import explain
from peftbench.tables.table import Table
from peftbench.terminal import console, print_table


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench table",
        description="Show a table made of the runs there are; nothing is trained (`peftbench sweep` does that).",
    )
    parser.add_argument("table", metavar="TABLE", help="e.g. lab/bottleneck; `peftbench list tables` shows them")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for `peftbench sweep`, e.g. model=minilm seeds=3"
    )
    parser.add_argument("--format", metavar="FORMAT", help=f"{', '.join(FORMATS)}, or all (default: the terminal's)")
    parser.add_argument(
        "--explain-spread",
        action="store_true",
        help="how much of the spread comes from initialisation, order of batches, dropout and examples, where"
        " `peftbench sweep table=… explain_spread=true` has trained what tells",
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="file to write; with png, svg and all, the folder")
    return parser


def main(argv: list[str]) -> int:
    """Print the table, or write it to a file; returns the exit code.

    Raises UserError for an unknown table or format, or a mistake in the overrides.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    formats = FORMATS if arguments.format == "all" else [arguments.format] if arguments.format else []
    check_formats(formats)
    if arguments.output is None and len([name for name in formats if name not in TEXTS]):
        raise UserError(f"--format {arguments.format} needs --output FOLDER")
    if arguments.explain_spread and formats:
        raise UserError("--explain-spread is shown on the terminal: leave out --format")
    if arguments.output is not None and not formats:
        raise UserError(f"--output needs --format: {', '.join(FORMATS)}, or all")
    settings = [f"table={arguments.table}", *quote_free_text(arguments.overrides)]
    request = read_request(settings)
    found = collect(request.planned, use_stale=request.stale == "use")
    table = build_table(request.spec, found, request.command)
    if not formats:
        show(table)
        if arguments.explain_spread:
            show_spread(settings, request, found)
    elif arguments.format in TEXTS:
        text = TEXTS[arguments.format][1](table)
        if arguments.output is None:
            sys.stdout.write(text)
        else:
            with atomic_write(arguments.output) as file:
                file.write(text)
    else:
        write_table(table, arguments.output, formats)
    return 0


def show(table: Table) -> None:
    """Print a table on the terminal."""
    print_table(to_terminal(table))


def show_spread(settings: Sequence[str], request: TableRequest, found: Sequence[Found]) -> None:
    """Print what the spread of a table's rows comes from, and the command that trains what that lacks."""
    use_stale, metric = request.stale == "use", str(found[0].planned.config["task"]["metrics"][0])
    varied = {key: collect(runs, use_stale) for key, runs in varied_runs(settings).items()}
    spreads = explain([row.label for row in request.spec.rows], found, varied, metric)
    print_table("", spread_to_terminal(spreads, metric, str(request.spec.evaluation)))
    lacking = len({run.planned.folder for runs in varied.values() for run in runs if not run.used})
    if lacking:
        command = shlex.join(["peftbench", "sweep", *settings, "explain_spread=true"])
        console.print(f"{lacking} runs are missing for it: {command}", style="dim")

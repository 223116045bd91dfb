"""`peftbench table`: a table from the records there are; trains nothing."""

import argparse
import shlex
from collections.abc import Sequence

from peftbench.arguments import Parser
from peftbench.commands.table_output import add_output_options, check_output, put_out
from peftbench.config.quoting import quote_free_text
from peftbench.errors import UserError
from peftbench.search.found_table import build_tables, read_tables
from peftbench.sweeps.request import TableRequest, command_of
from peftbench.sweeps.spread import varied_runs
from peftbench.sweeps.tasks import split_tasks
from peftbench.tables.collect import RunState, collect
from peftbench.tables.export.spread import to_terminal as spread_to_terminal
from peftbench.tables.spread import explain
from peftbench.terminal import console, print_table


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench table",
        description="Show a table of the existing runs; nothing is trained (`peftbench sweep` does that).",
    )
    parser.add_argument("table", metavar="TABLE", help="e.g. lab/bottleneck; see `peftbench list tables`")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for `peftbench sweep`, e.g. model=minilm task=mrpc,rte"
    )
    parser.add_argument(
        "--explain-spread",
        action="store_true",
        help="also show how much of the spread comes from initialisation, batch order, dropout and examples, from the"
        " runs that `peftbench sweep table=… explain_spread=true` trains",
    )
    add_output_options(parser)
    return parser


def main(argv: list[str]) -> int:
    """Print the table, or write it to a file; returns the exit code.

    Raises UserError for an unknown table or format, or a mistake in the overrides.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    check_output(arguments)
    if arguments.explain_spread and arguments.format:
        raise UserError("--explain-spread is shown on the terminal: leave out --format")
    settings = [f"table={arguments.table}", *quote_free_text(arguments.overrides)]
    lines = split_tasks([*settings, *(["explain_spread=true"] if arguments.explain_spread else [])])
    tables = read_tables(lines)
    put_out(build_tables(tables, command_of(settings)), arguments)
    if arguments.explain_spread:
        show_spread(settings, tables[0].request, tables[0].found)
    return 0


def show_spread(settings: Sequence[str], request: TableRequest, found: Sequence[RunState]) -> None:
    """Print what the spread of a table's rows comes from, and the command that trains what that lacks."""
    use_stale, metric = request.stale == "use", str(found[0].planned.config["task"]["metrics"][0])
    varied = {key: collect(runs, use_stale) for key, runs in varied_runs(settings).items()}
    spreads = explain([row.label for row in request.spec.rows], found, varied, metric)
    print_table("", spread_to_terminal(spreads, metric, str(found[0].planned.evaluation)))
    lacking = len({run.planned.folder for runs in varied.values() for run in runs if not run.used})
    if lacking:
        command = shlex.join(["peftbench", "sweep", *settings, "explain_spread=true"])
        console.print(f"{lacking} runs are missing for it: {command}", style="dim")

"""`peftbench table`: a table from the records there are; trains nothing."""

import argparse
import sys
from pathlib import Path

from peftbench.arguments import Parser
from peftbench.config.quoting import quote_free_text
from peftbench.errors import UserError
from peftbench.files import atomic_write
from peftbench.sweeps.request import read_request
from peftbench.tables.build import build_table
from peftbench.tables.collect import collect
from peftbench.tables.export.formats import FORMATS, TEXTS, check_formats, write_table
from peftbench.tables.export.terminal import to_terminal
from peftbench.tables.table import Table
from peftbench.terminal import print_table


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
    if arguments.output is not None and not formats:
        raise UserError(f"--output needs --format: {', '.join(FORMATS)}, or all")
    request = read_request([f"table={arguments.table}", *quote_free_text(arguments.overrides)])
    found = collect(request.planned, use_stale=request.stale == "use")
    table = build_table(request.spec, found, request.command)
    if not formats:
        show(table)
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

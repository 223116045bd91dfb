"""How commands show a table, or write it to a file: `--format` and `--output`."""

import argparse
import sys
from pathlib import Path

from peftbench.errors import UserError
from peftbench.files import atomic_write, is_there
from peftbench.tables.export.formats import FORMATS, TEXTS, check_formats, write_table
from peftbench.tables.export.terminal import to_terminal
from peftbench.tables.table import Table
from peftbench.terminal import print_table

_CONFIGS = (".yaml", ".yml")
_READ = (".json", ".jsonl")  # files of these kinds in a folder of results are taken for results


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the two options."""
    parser.add_argument("--format", metavar="FORMAT", help=f"{', '.join(FORMATS)}, or all (default: terminal output)")
    parser.add_argument("--output", type=Path, metavar="PATH", help="output file; for png, svg and all, a folder")


def check_output(arguments: argparse.Namespace, source: Path | None = None) -> None:
    """Raise UserError, before any work is done, for options that do not go together and for a file that is no output.

    Args:
        source: the file or folder that is read, of which nothing may be written over.
    """
    formats = _formats(arguments)
    check_formats(formats)
    if arguments.output is None and len([name for name in formats if name not in TEXTS]):
        raise UserError(f"--format {arguments.format} needs --output FOLDER")
    if arguments.output is not None and not formats:
        raise UserError(f"--output needs --format: {', '.join(FORMATS)}, or all")
    if arguments.output is not None:
        _check_is_no_source(arguments.output, source)


def _check_is_no_source(output: Path, source: Path | None) -> None:
    if output.suffix.lower() in _CONFIGS:
        raise UserError(f"--output {output}: this is the name of a config; write another")
    if source is not None and is_there(source):
        read = source.resolve()
        written = [output, *(output / f"table.{ending}" for ending, _ in TEXTS.values())]
        within = output.suffix.lower() in _READ and output.resolve().is_relative_to(read)
        if within or read in [path.resolve() for path in written]:
            raise UserError(f"--output {output}: {source} is what is read; write to another place")


def put_out(table: Table, arguments: argparse.Namespace) -> None:
    """Print the table, or write it, as the options say; raises UserError where a file cannot be written."""
    formats = _formats(arguments)
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


def show(table: Table) -> None:
    """Print a table on the terminal."""
    print_table(to_terminal(table))


def _formats(arguments: argparse.Namespace) -> list[str]:
    return list(FORMATS) if arguments.format == "all" else [arguments.format] if arguments.format else []

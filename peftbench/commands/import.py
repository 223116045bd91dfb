"""`peftbench import`: an adapter of Hugging Face peft or AdapterHub as a run's record."""

import argparse
from pathlib import Path

from peftbench.arguments import Parser
from peftbench.commands.run_options import working_on_stderr
from peftbench.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench import",
        description="Import an adapter and its head, saved by Hugging Face peft or AdapterHub's adapters, as a run, and"
        " score it on the task's validation split. `predict`, `evaluate` and `export` treat it like any other run.",
        epilog="Choose the model it belongs to as in `peftbench train`: peftbench import FOLDER --task mrpc"
        " model=bert_base",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="written by save_pretrained or save_adapter")
    parser.add_argument("--task", required=True, help="what it was trained for, a name from `peftbench list tasks`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of `peftbench train`: model=…")
    return parser


def main(argv: list[str]) -> int:
    """Write the record and show its scores; returns the exit code.

    Raises UserError where the folder, the model or the data cannot be had or do not fit each other.
    """
    from peftbench.config.compose import compose
    from peftbench.config.quoting import quote_free_text
    from peftbench.config.schema import resolve
    from peftbench.runs.report import report_result
    from peftbench.serving.import_run import import_run

    arguments = build_parser().parse_intermixed_args(argv)
    for override in arguments.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] == "method":
            raise UserError(f"{override}: the folder says which method it is and how it is set; leave that out")
        if key == "task":
            raise UserError(f"{override}: say it as --task")
    overrides = quote_free_text([f"task={arguments.task}", *arguments.overrides])
    record = import_run(resolve(compose(overrides)), arguments.folder, overrides, working_on_stderr)
    report_result(record)
    return 0

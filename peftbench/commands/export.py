"""`peftbench export`: a finished run as a folder that another library reads."""

import argparse
from pathlib import Path

from peftbench.arguments import Parser
from peftbench.commands.run_options import add_run_arguments, chosen_run, working_on_stderr

_TARGETS = {
    "merged": "a plain transformers model with the method merged into its weights (default)",
    "peft": "a Hugging Face peft adapter",
    "adapters": "an adapter for AdapterHub's adapters library",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench export",
        description="Export a finished run to a folder that another library can load, with a model card, and verify"
        " there that it gives the same predictions as the run.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--to",
        choices=_TARGETS,
        default="merged",
        help="; ".join(f"{name}: {text}" for name, text in _TARGETS.items()),
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder to create (default: RUN-TARGET)")
    parser.add_argument(
        "--task-dir",
        metavar="DIR",
        help="new location of the task's data (train.tsv, dev.tsv, test.tsv, or image folders), if it has moved",
    )
    return parser


def main(argv: list[str]) -> int:
    """Write the folder and say how well it matches; returns the exit code.

    Raises UserError where the run, its model or data cannot be had, the method does not fit or the folder exists.
    """
    from peftbench.serving.export import export_run
    from peftbench.serving.model_card import agreement
    from peftbench.terminal import console

    arguments = build_parser().parse_args(argv)
    record = chosen_run(arguments)
    folder = arguments.output or Path(f"{record.folder.name}-{arguments.to}")
    certificate = export_run(record, folder, arguments.to, arguments.task_dir, working_on_stderr)
    console.print(agreement(certificate, arguments.to))
    console.print(f"exported: {folder}/, its README.md says how to load it")
    return 0

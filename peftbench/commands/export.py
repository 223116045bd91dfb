"""`peftbench export`: a finished run as a folder that another library reads."""

import argparse
from pathlib import Path

from peftbench.arguments import Parser
from peftbench.commands.run_options import add_run_arguments, chosen_run, working_on_stderr

_TARGETS = {
    "merged": "an ordinary transformers model, the method folded into its weights (default)",
    "peft": "an adapter of Hugging Face peft",
    "adapters": "an adapter of AdapterHub's adapters",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench export",
        description="Write a finished run as a folder that another library reads, with a model card, and check by"
        " loading it there that it answers as the run does.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--to",
        choices=_TARGETS,
        default="merged",
        help="; ".join(f"{name}: {text}" for name, text in _TARGETS.items()),
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="to be made (default: RUN-TARGET)")
    parser.add_argument(
        "--task-dir",
        metavar="DIR",
        help="where the task's data (train.tsv, dev.tsv, test.tsv, or folders of images) lie now, if they have moved",
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

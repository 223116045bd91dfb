"""`peftbench recommend`: which method for a file of one's own, found by training within limits."""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from peftbench.advice import sentences
from peftbench.advice.advise import Advice
from peftbench.advice.limits import Limits
from peftbench.advice.plain import plain_advice
from peftbench.advice.terminal import to_terminal
from peftbench.arguments import Parser, duration
from peftbench.assets.cache import file_digest
from peftbench.commands.limit_options import latency_ratio, mebibytes, percent
from peftbench.config.quoting import in_quotes, quote_free_text
from peftbench.errors import INTERRUPTED, UserError
from peftbench.files import expanded, is_there, write_json
from peftbench.recommend.recommend import Question, Selection, recommend
from peftbench.recommend.sentence import headline
from peftbench.recommend.stages import Outcome
from peftbench.sweeps.request import key_of, merge
from peftbench.tables.export.formats import write_table
from peftbench.tables.table import Table
from peftbench.terminal import console, format_duration, print_table

_EPILOG = """
how
  A fifth of the rows is held out for selection and a fifth for the reported scores, always the same rows. Every
  method is trained for a quarter of its full training, the better half for half of it, and up to four in full, on
  several seeds. Nothing is trained twice: run the same command again to resume.

settings, as for `peftbench sweep`
  model=bert_base seeds=5  task.splits.test=FILE  'task.metrics=[pearson,spearman]' if labels are scores
  table=recommend          the candidates: conf/table/recommend.yaml, or your own table
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench recommend",
        description="Train methods and sizes on your own file, within limits, and recommend one.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="CSV, TSV or JSONL, with a header or keys")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for all runs")
    parser.add_argument(
        "--text", required=True, action="append", metavar="COLUMN", help="once, or twice for text pairs"
    )
    parser.add_argument("--label", required=True, metavar="COLUMN")
    parser.add_argument(
        "--max-latency", metavar="RATIO", help="latency at batch size 1, relative to the bare backbone, e.g. 1.05"
    )
    parser.add_argument("--max-memory", metavar="SIZE", help="training memory and total weights, e.g. 2G or 900M")
    parser.add_argument(
        "--max-share", metavar="PERCENT", help="trained parameters, in percent of the backbone's, e.g. 1"
    )
    parser.add_argument("--budget", metavar="TIME", help="total time, e.g. 30m or 4h (default: no limit)")
    return parser


def main(argv: list[str]) -> int:
    """Train, compare and print the answer; returns 0, or 130 where it was interrupted.

    Raises UserError for a mistake in the line or the data, limits that no method keeps to, and too short a budget.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    limits = Limits(
        memory=mebibytes("--max-memory", arguments.max_memory),
        latency=latency_ratio("--max-latency", arguments.max_latency),
        share=percent("--max-share", arguments.max_share),
    )
    question = Question(
        _lines(arguments), limits, None if arguments.budget is None else duration("--budget", arguments.budget)
    )
    try:
        outcome, selection = recommend(question)
    except UserError as error:  # of settings that the user gave as options
        raise UserError(re.sub(r"\btask\.(text|label)\b", r"--\1", str(error))) from error
    except KeyboardInterrupt:
        console.print("\ninterrupted; the same command goes on")
        return INTERRUPTED
    notes = _notes(selection)
    advice = [Advice("Which method for this file?", outcome.answer, notes=notes)]
    print_table("", to_terminal(advice, limits))
    answer = headline(outcome.answer, outcome.table.delta)
    console.print(f"\nTake {answer}", style="bold")
    folder = selection.folder / "tables" / "recommend"
    write_table(_answering(outcome, f"Take {answer}", limits, notes), folder)
    write_json(folder / "recommendation.json", {"headline": answer, **plain_advice(advice, limits)})
    console.print(f"table, plots, page and recommendation.json: {folder}/")
    return 0


def _answering(outcome: Outcome, answer: str, limits: Limits, notes: list[str]) -> Table:
    """Return the finalists' table with the answer below it, within the limits, in place of the highest row of all."""
    asked = sentences.limits_asked(limits)
    chosen = [candidate for candidate in (outcome.answer.best, outcome.answer.cheapest) if candidate]
    how = [
        *([f"limits: {asked}"] if asked else []),
        *(f"{candidate.label} is trained by: {sentences.command(candidate)}" for candidate in chosen),
        *sentences.unsure(outcome.answer),
        *notes,
    ]
    return replace(outcome.table, conclusion=answer, notes=[*how, *outcome.table.notes])


def _lines(arguments: argparse.Namespace) -> list[str]:
    """Return the settings that make the table of all candidates; raises UserError for a file that is not there."""
    file = expanded(arguments.file)
    if not is_there(file, Path.is_file):
        other = "a folder" if is_there(file, Path.is_dir) else "a pipe or device"
        raise UserError(f"{arguments.file}: {f'this is {other}, not a file' if is_there(file) else 'no such file'}")
    if len(arguments.text) > 2:
        raise UserError(f"--text {' --text '.join(arguments.text)}: a text is one column, or a pair of two")
    name = re.sub(r"[^\w-]+", "-", file.stem).strip("-")[:40]
    chosen = [] if any(key_of(line) == "table" for line in arguments.settings) else ["table=recommend"]
    of_file = [
        f"experiment=recommend-{name}-{file_digest(file)[:8]}",  # a file that was changed is another one
        "task=text_file",
        f"task.splits.train={in_quotes(str(file.absolute()))}",
        "task.splits.validation=0.2",
        "task.splits.test=0.2",
        f"task.text=[{','.join(map(in_quotes, arguments.text))}]",
        f"task.label={in_quotes(arguments.label)}",
    ]
    return quote_free_text(merge(chosen, of_file, arguments.settings))


def _notes(selection: Selection) -> list[str]:
    spent = f"all runs took {format_duration(selection.seconds)}"
    if round(selection.overhead):
        spent += f", starting and measuring them {format_duration(selection.overhead)} here"
    return [spent, *(f"out: {label}: {reason}" for label, reason in selection.left_out.items())]

"""`peftbench predict`: a finished run's labels and probabilities for texts or images of the user's own."""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.arguments import Parser
from peftbench.commands.run_options import (
    add_inference_arguments,
    add_precision_argument,
    add_run_arguments,
    chosen_run,
    working_on_stderr,
)
from peftbench.config.task import DenseTaskConfig, TextTaskConfig, fill_task
from peftbench.errors import UserError
from peftbench.files import expanded, is_there
from peftbench.serving.image_inputs import answer_readable, read_images, report_unreadable
from peftbench.serving.inputs import InputRow, read_input
from peftbench.terminal import error_console

if TYPE_CHECKING:
    from peftbench.serving.outputs import Batch
    from peftbench.serving.predictor import Answer, Predictor

_BLANK_ROWS_NAMED = 10


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench predict",
        description="Label text with a finished run: text given as arguments, in a file or on standard input. Every"
        " line or row gets an answer, in order; one without text gets an empty answer. A run on images labels image"
        " files and whole folders (or their subfolders, if they hold no images); an unreadable image only loses its own"
        " answer.",
        epilog="For a task on text pairs, give the two texts of a pair as consecutive arguments, or separated by a tab"
        " in a file or on standard input. Several runs on one backbone can answer one file, whose `task` column names"
        " the run for each row: peftbench predict --runs mrpc=RUN rte=RUN FILE.",
    )
    add_run_arguments(parser, nargs="?")
    parser.add_argument(
        "--runs", nargs="+", metavar="TASK=RUN", help="several runs, each with its name in the `task` column"
    )
    add_precision_argument(parser)
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT|IMAGE",
        help="text to label, or an image or a folder of images; standard input is read if none is given",
    )
    parser.add_argument(
        "--file",
        type=Path,
        help="one text per line; or .csv, .tsv, .jsonl with the columns of the run's task",
    )
    add_inference_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.csv|FOLDER",
        help="write a CSV instead: every row and column of the input, then prediction and probabilities; for a run that"
        " predicts masks or boxes, the folder to write them to (default: predictions)",
    )
    return parser


def main(argv: list[str]) -> int:
    """Print an answer for each text, batch by batch as the texts come; returns the exit code.

    Raises UserError where the run or its model cannot be had, and for texts that are missing, empty, too many
    or too few for the task, or not UTF-8.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    if arguments.runs:
        from peftbench.commands.predict_tasks import predict_tasks

        return predict_tasks(arguments)
    if arguments.run is None:
        raise UserError("name a run, or several with --runs; `peftbench predict --help` shows how")
    if arguments.precision:
        raise UserError("--precision is of several runs, --runs; one answers in the precision of its training")
    record = chosen_run(arguments)

    from peftbench.serving.load import check_mergeable, describe_run
    from peftbench.serving.predictor import Answer, Predictor, load_predictor
    from peftbench.training.devices import choose_device

    description = describe_run(record)
    if arguments.merged:
        check_mergeable(description.method["name"])
    choose_device(arguments.device)  # a mistake shows before anything is read
    task = fill_task(description.task)
    if isinstance(task, DenseTaskConfig):
        from peftbench.commands.predict_pictures import predict_pictures

        return predict_pictures(arguments, record, task.kind)
    check_output(arguments)
    blank: list[int] = []
    unreadable: list[str] = []
    answer: Callable[[Predictor, list[Any]], list[Answer]]
    if isinstance(task, TextTaskConfig):
        header, rows = read_input(arguments.texts, arguments.file, task.text)
        answer = Predictor.predict
    else:
        header, rows = read_images(arguments.texts, arguments.file)
        answer = partial(_answer_images, unreadable=unreadable)
    rows = through_first_text(rows)
    with working_on_stderr("loading the model"):
        predictor = load_predictor(record, "", arguments.device, arguments.merged, arguments.batch_size)

    def predict(batch: list[InputRow]) -> list[Answer]:
        return answer(predictor, [row.texts for row in batch])

    size = 1 if _is_typed(arguments) else predictor.batch_size
    show(arguments, answered(predict, rows, size, blank), header, predictor.columns, predictor.labels)
    report_blank(blank)
    report_unreadable(unreadable)
    return 0


def _answer_images(predictor: "Predictor", images: list[Any], unreadable: list[str]) -> list["Answer"]:
    return answer_readable(predictor.predict, images, unreadable)


def show(
    arguments: argparse.Namespace,
    batches: Iterator["Batch"],
    header: list[str],
    columns: list[str],
    labels: list[str] | None,
) -> None:
    """Print or write the answers in the form that the arguments ask for; `labels` is None for several tasks."""
    from peftbench.serving import outputs

    if arguments.output is not None:
        outputs.write_csv(arguments.output, batches, header, labels)
    elif arguments.json:
        outputs.print_json(batches, "image" if columns == ["image"] else "text")
    elif sys.stdout.isatty():
        outputs.print_table(batches, columns, labels)
    else:
        outputs.print_tsv(batches, columns, labels)


def check_output(arguments: argparse.Namespace) -> None:
    """Raise UserError where what --output names cannot take the answers, or is the file they are of."""
    if arguments.output is None:
        return
    if arguments.output.suffix.lower() != ".csv":
        raise UserError(f"--output {arguments.output}: it writes CSV; name the file .csv")
    if arguments.json:
        raise UserError("--json prints and --output writes a CSV: give one of them")
    if not is_there(arguments.output.parent, Path.is_dir):
        raise UserError(f"--output {arguments.output}: there is no folder {arguments.output.parent}")
    if arguments.file is not None and arguments.output.resolve() == expanded(arguments.file).resolve():
        raise UserError(f"--output {arguments.output}: this is the file that is read; write another")


def _is_typed(arguments: argparse.Namespace) -> bool:
    """Whether someone types the texts and waits for each answer."""
    return not arguments.texts and arguments.file is None and sys.stdin.isatty()


def through_first_text(rows: Iterator[InputRow]) -> Iterator[InputRow]:
    """Read up to the first row with a text, so that a mistake shows before the model is loaded."""
    first: list[InputRow] = []
    for row in rows:
        first.append(row)
        if not row.blank:
            break
    return chain(first, rows)


def answered(
    predict: Callable[[list[InputRow]], list["Answer"]], rows: Iterator[InputRow], size: int, blank: list[int]
) -> Iterator["Batch"]:
    """Yield rows with their answers, `size` at a time; `blank` gets the numbers of the rows without text.

    What stands in front of a bad line is answered before its error.
    """
    error: UserError | None = None

    def until_error() -> Iterator[InputRow]:
        nonlocal error
        try:
            yield from rows
        except UserError as met:
            error = met

    readable = until_error()
    while batch := list(islice(readable, size)):
        blank += [row.number for row in batch if row.blank]
        yield list(zip(batch, predict(batch), strict=True))
    if error is not None:
        raise error


def report_blank(blank: list[int]) -> None:
    """Say which rows had no text."""
    if blank:
        numbers = ", ".join(map(str, blank[:_BLANK_ROWS_NAMED]))
        more = f" and {len(blank) - _BLANK_ROWS_NAMED} more" if len(blank) > _BLANK_ROWS_NAMED else ""
        error_console.print(f"no text and so no prediction: line {numbers}{more}", style="dim")

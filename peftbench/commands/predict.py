"""`peftbench predict`: a finished run's labels and probabilities for text of the user's own."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from peftbench.commands.run_options import add_inference_arguments, add_run_arguments, chosen_run, working
from peftbench.errors import UserError
from peftbench.runs.record import Record

if TYPE_CHECKING:
    import torch

    from peftbench.serving.load import RunModel

# files with named columns; any other holds one text (or pair) a line
_TABLES = (".csv", ".tsv", ".jsonl")
_GLUE_COLUMNS = {1: ["sentence"], 2: ["sentence1", "sentence2"]}

Texts = tuple[str, ...]


class Answer(NamedTuple):
    """One example: its text or texts, the class's name (or the score), and each class's probability."""

    texts: Texts
    prediction: str | float
    probabilities: dict[str, float]


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = argparse.ArgumentParser(
        prog="peftbench predict",
        description="Label text with a finished run: text on the line, in a file or on standard input.",
        epilog="A task of pairs takes its texts two by two on the line; in a file or on standard input a tab"
        " stands between the two.",
    )
    add_run_arguments(parser)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="text to label; without any, standard input is read")
    parser.add_argument(
        "--file",
        type=Path,
        help="one text a line; or .csv, .tsv, .jsonl with the columns of the run's task",
    )
    add_inference_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    return parser


def main(argv: list[str]) -> int:
    """Print an answer for each text, batch by batch as the texts come; returns the exit code.

    Raises UserError where the run or its model cannot be had, and for texts that are missing, empty, too many
    or too few for the task, or not UTF-8.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    record = chosen_run(arguments)

    from peftbench.serving.load import check_mergeable, describe_run

    description = describe_run(record)
    if arguments.merged:
        check_mergeable(description.method["name"])
    columns = list(description.task["text"])
    answers = _answers(record, arguments, columns)
    if arguments.json:
        _print_json(answers)
    elif sys.stdout.isatty():
        _print_table(answers, columns)
    else:
        _print_tsv(answers, columns)
    return 0


def _answers(record: Record, arguments: argparse.Namespace, columns: list[str]) -> Iterator[list[Answer]]:
    """Yield the answers of one batch after the other."""
    from peftbench.config.schema import TrainerConfig, fill
    from peftbench.serving.load import inference, load_run_model
    from peftbench.training.devices import use_device

    device = use_device(arguments.device)
    trainer = fill(TrainerConfig, record.config()["trainer"], "trainer")
    size = arguments.batch_size or trainer.eval_batch_size
    if not arguments.texts and arguments.file is None and sys.stdin.isatty():
        size = 1  # someone types and waits for each answer
    examples = _examples(arguments, columns)
    first = next(examples, None)
    if first is None:
        where = "standard input" if arguments.file is None else arguments.file
        raise UserError(f"{where} holds no text: give one a line")
    with working("loading the model"):
        model = load_run_model(record, device)
    with inference(model, arguments.merged):
        for batch in _batches(chain([first], examples), size):
            yield _answer(model, batch, trainer.precision, device)


def _answer(model: "RunModel", texts: Sequence[Texts], precision: str, device: "torch.device") -> list[Answer]:
    from peftbench.tasks.text.batching import encode
    from peftbench.training.inference import logits_of, read_out

    labels = model.description.labels
    data = encode(texts, None, model.backbone.sites.tokenizer, model.description.task["max_length"])
    logits = logits_of(model.backbone.model, data, len(texts), precision, device)
    predictions, probabilities = read_out(logits, regression=not labels)
    if probabilities is None:
        return [Answer(text, float(score), {}) for text, score in zip(texts, predictions, strict=True)]
    return [
        Answer(text, labels[index], dict(zip(labels, map(float, row), strict=True)))
        for text, index, row in zip(texts, predictions, probabilities, strict=True)
    ]


# ---- what to label ---------------------------------------------------------------------------------------


def _examples(arguments: argparse.Namespace, columns: list[str]) -> Iterator[Texts]:
    """Yield the one or two texts of each example; blank lines are left out."""
    if arguments.texts and arguments.file is not None:
        raise UserError("give text on the line or with --file, not both")
    if arguments.texts:
        return _from_line(arguments.texts, len(columns))
    if arguments.file is None:
        return _from_lines(_standard_input(), "standard input", len(columns))
    return _from_file(arguments.file, columns)


def _from_line(texts: list[str], width: int) -> Iterator[Texts]:
    if len(texts) % width:
        raise UserError(f"this run's task is made of pairs of texts: give two, not {len(texts)}")
    for position, text in enumerate(texts, start=1):
        if not text.strip():
            raise UserError(f"text {position} is empty")
    for start in range(0, len(texts), width):
        yield tuple(text.strip() for text in texts[start : start + width])


def _from_file(path: Path, columns: list[str]) -> Iterator[Texts]:
    from peftbench.tasks.text.files import read_columns, read_text

    path = path.expanduser()
    if path.suffix.lower() in _TABLES:
        rows = read_columns(path, columns, _GLUE_COLUMNS[len(columns)])
        return (tuple(cell.strip() for cell in cells) for _, cells in rows.items)
    return _from_lines(read_text(path).split("\n"), str(path), len(columns))


def _from_lines(lines: Iterable[str], origin: str, width: int) -> Iterator[Texts]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        texts = (line,) if width == 1 else tuple(line.split("\t"))
        if len(texts) != width:
            raise UserError(
                f"{origin}, line {number}: this run's task is made of pairs of texts: write two with a tab"
                f" between them, not {len(texts)}"
            )
        yield tuple(text.strip() for text in texts)


def _standard_input() -> Iterator[str]:
    if sys.stdin.isatty():
        print("reading standard input, one text a line; Ctrl-D ends it", file=sys.stderr)
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"standard input, line {number}, byte {error.start + 1}: not UTF-8 (0x{error.object[error.start]:02x})"
            ) from None


def _batches(examples: Iterable[Texts], size: int) -> Iterator[list[Texts]]:
    """Cut into lists of `size`; what stands in front of a bad line is passed on before its error."""
    batch: list[Texts] = []
    try:
        for example in examples:
            batch.append(example)
            if len(batch) == size:
                yield batch
                batch = []
    except UserError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


# ---- how the answers are shown ---------------------------------------------------------------------------


def _print_json(batches: Iterable[list[Answer]]) -> None:
    for batch in batches:
        for answer in batch:
            line: dict[str, Any] = {
                "text": answer.texts[0] if len(answer.texts) == 1 else answer.texts,
                "prediction": answer.prediction,
            }
            if answer.probabilities:
                line["probabilities"] = answer.probabilities
            print(json.dumps(line, ensure_ascii=False))
        sys.stdout.flush()


def _print_tsv(batches: Iterable[list[Answer]], columns: list[str]) -> None:
    """Print a header, then prediction, probabilities and text of each example with tabs between them."""
    for number, batch in enumerate(batches):
        if number == 0:
            print("prediction", *batch[0].probabilities, *columns, sep="\t")
        for answer in batch:
            prediction = answer.prediction
            shown = prediction if isinstance(prediction, str) else f"{prediction:.6g}"
            probabilities = (f"{value:.6f}" for value in answer.probabilities.values())
            print(shown, *probabilities, *(" ".join(text.split()) for text in answer.texts), sep="\t")
        sys.stdout.flush()


def _print_table(batches: Iterable[list[Answer]], columns: list[str]) -> None:
    """Print a table for each batch, the first with a header, all with the same widths."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for number, batch in enumerate(batches):
        classes = batch[0].probabilities
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=number == 0)
        table.add_column("prediction", min_width=max([10, *map(len, classes)]), no_wrap=True, style="bold")
        for name in classes:
            table.add_column(Text(name), min_width=max(len(name), 7), justify="right", no_wrap=True)
        for column in columns:
            table.add_column(Text(column), ratio=1, overflow="fold")
        for answer in batch:
            prediction = answer.prediction
            shown = prediction if isinstance(prediction, str) else f"{prediction:.3f}"
            shares = [f"{100 * value:.1f} %" for value in answer.probabilities.values()]
            table.add_row(Text(shown), *shares, *map(Text, answer.texts))
        console.print(table)

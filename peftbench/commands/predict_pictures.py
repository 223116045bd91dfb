"""`peftbench predict` of a run that answers at every place of a picture: masks or boxes, written as files."""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.commands.predict import through_first_text
from peftbench.commands.run_options import working_on_stderr
from peftbench.errors import UserError
from peftbench.files import is_there
from peftbench.runs.record import Record
from peftbench.serving.image_inputs import answer_readable, read_images, report_unreadable
from peftbench.serving.inputs import InputRow
from peftbench.terminal import console, print_as_json

if TYPE_CHECKING:
    from peftbench.serving.predictor import Predictor

_FOLDER = Path("predictions")
_FILES = (".csv", ".json", ".jpg", ".png")  # names with these are meant for one file


def predict_pictures(arguments: argparse.Namespace, record: Record, kind: str) -> int:
    """Answer pictures and say of each what is in it; returns the exit code.

    Args:
        arguments: of the command, which name the pictures.
        record: of the run. kind: of its task, segmentation or detection.

    Files go to `--output`, or to the folder predictions. Raises UserError where the pictures or the model cannot be
    had, where a file cannot be written, and after the last picture where some could not be read.
    """
    from peftbench.serving.picture_outputs import PICTURE_OUTPUTS
    from peftbench.serving.predictor import load_predictor

    _check_folder(arguments.output)
    folder: Path = arguments.output or _FOLDER
    output = PICTURE_OUTPUTS[kind]
    rows = through_first_text(read_images(arguments.texts, arguments.file).rows)
    with working_on_stderr("loading the model"):
        predictor = load_predictor(record, "", arguments.device, arguments.merged, arguments.batch_size)
    count = 0
    unreadable: list[str] = []
    for written in output.write(folder, _answers(predictor, rows, unreadable, arguments.json), predictor.labels):
        count += 1
        if arguments.json:
            print_as_json({"image": written.picture, "found": written.found, **written.files})
            continue
        shown = [
            output.describe(label, amount)
            for label, amount in sorted(written.found.items(), key=lambda entry: -entry[1])
        ]
        console.print(f"{written.picture}  {', '.join(shown) or 'nothing'}", markup=False, highlight=False)
    if count and not arguments.json:
        console.print(
            f"{output.files} of {count:,} picture{'s' if count > 1 else ''} are in {folder}", style="dim", markup=False
        )
    report_unreadable(unreadable)
    return 0


def _check_folder(output: Path | None) -> None:
    if output is not None and (output.suffix.lower() in _FILES or is_there(output, Path.is_file)):
        raise UserError(f"--output {output}: masks and boxes are several files; name a folder")


def _answers(
    predictor: "Predictor", rows: Iterator[InputRow], unreadable: list[str], as_json: bool
) -> Iterator[tuple[str, Any]]:
    """Yield pictures with their answers; those that cannot be read are named where their line would stand."""
    given = (row.texts[0] for row in rows if not row.blank)
    while batch := list(islice(given, predictor.batch_size)):
        answers = answer_readable(predictor.predict, batch, unreadable)
        for picture, answer in zip(batch, answers, strict=True):
            if answer.prediction is not None:
                yield picture, answer.prediction
            elif as_json:
                print_as_json({"image": picture, "found": None})
            else:
                console.print(f"{picture}  no answer", markup=False, highlight=False)

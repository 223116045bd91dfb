"""`peftbench predict` of a run that answers at every place of a picture: masks or boxes, written as files."""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.serving.image_inputs import answer_readable, report_unreadable
from peftbench.serving.inputs import InputRow
from peftbench.terminal import console

if TYPE_CHECKING:
    from peftbench.serving.predictor import Predictor

_FOLDER = Path("predictions")


def predict_pictures(arguments: argparse.Namespace, predictor: "Predictor", rows: Iterator[InputRow], kind: str) -> int:
    """Answer pictures and say of each what is in it; returns the exit code.

    Args:
        predictor: of the run. rows: a picture's file each. kind: segmentation or detection.

    Files go to `--output`, or to the folder predictions. Raises UserError where one cannot be written, and behind the
    last where pictures could not be read.
    """
    from peftbench.serving.picture_outputs import BOXES, write_boxes, write_masks

    folder: Path = arguments.output or _FOLDER
    write = write_masks if kind == "segmentation" else write_boxes
    count = 0
    unreadable: list[str] = []
    for written in write(folder, _answers(predictor, rows, unreadable), predictor.labels):
        count += 1
        if arguments.json:
            print(json.dumps({"image": written.picture, "found": written.found, **written.files}, ensure_ascii=False))
            continue
        shown = [
            f"{label} {100 * much:.1f} %" if kind == "segmentation" else f"{much:.0f} {label}"
            for label, much in sorted(written.found.items(), key=lambda entry: -entry[1])
        ]
        console.print(f"{written.picture}  {', '.join(shown) or 'nothing'}", markup=False, highlight=False)
    what = "masks and overlays" if kind == "segmentation" else f"overlays and {BOXES}"
    if count and not arguments.json:
        console.print(f"{what} of {count:,} pictures are in {folder}", style="dim", markup=False)
    report_unreadable(unreadable)
    return 0


def _answers(predictor: "Predictor", rows: Iterator[InputRow], unreadable: list[str]) -> Iterator[tuple[str, Any]]:
    given = (row.texts[0] for row in rows if not row.blank)
    while batch := list(islice(given, predictor.batch_size)):
        answers = answer_readable(predictor.predict, batch, unreadable)
        yield from (
            (picture, answer.prediction)
            for picture, answer in zip(batch, answers, strict=True)
            if answer.prediction is not None
        )

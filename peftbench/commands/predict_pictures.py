"""`peftbench predict` of a run that answers at every place of a picture: masks or boxes, written as files."""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.serving.inputs import Row
from peftbench.terminal import console

if TYPE_CHECKING:
    from peftbench.serving.predictor import Predictor

_FOLDER = Path("predictions")


def predict_pictures(arguments: argparse.Namespace, predictor: "Predictor", rows: Iterator[Row], kind: str) -> int:
    """Answer pictures and say of each what is in it; returns the exit code.

    Args:
        predictor: of the run. rows: a picture's file each. kind: segmentation or detection.

    Files go to `--output`, or to the folder predictions. Raises UserError where one cannot be read or written.
    """
    from peftbench.serving.picture_outputs import BOXES, write_boxes, write_masks

    folder: Path = arguments.output or _FOLDER
    write = write_masks if kind == "segmentation" else write_boxes
    count = 0
    for written in write(folder, _answers(predictor, rows), predictor.labels):
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
    if not arguments.json:
        console.print(f"{what} of {count:,} pictures are in {folder}", style="dim", markup=False)
    return 0


def _answers(predictor: "Predictor", rows: Iterator[Row]) -> Iterator[tuple[str, Any]]:
    given = (row.texts[0] for row in rows if not row.blank)
    while batch := list(islice(given, predictor.batch_size)):
        yield from zip(batch, (answer.prediction for answer in predictor.predict(batch)), strict=True)

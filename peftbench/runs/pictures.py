"""Pictures of a run's validation split with labels and predictions drawn on them, for HTML pages and loggers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.files import atomic_write, make_folder

if TYPE_CHECKING:
    from peftbench.runs.predictions import Predictions
    from peftbench.tasks.base import Task

FOLDER = "pictures"
SHOWN = 4
_SPLIT = "validation"
_LONGEST = 256  # pixels of the longer side
_QUALITY = 85


def write_pictures(record: Path, task: "Task", predictions: Mapping[str, "Predictions"]) -> None:
    """Write `pictures/N-truth.jpg` and `pictures/N-prediction.jpg` of some that lie evenly over the validation split.

    Neighbours may be frames of one sequence, which show the same.

    Nothing is written of a task without pictures. Raises UserError where the disk is full or a picture is gone.
    """
    if _SPLIT not in predictions:
        return
    answers = predictions[_SPLIT].predictions
    shown = min(SHOWN, len(answers))
    for number in range(shown):
        index = number * len(answers) // shown
        rendered = task.render_example(task.splits[_SPLIT], index, answers[index])
        if rendered is None:
            return
        make_folder(record / FOLDER)
        for name, image in zip(("truth", "prediction"), rendered, strict=True):
            with atomic_write(record / FOLDER / f"{number}-{name}.jpg", binary=True) as file:
                _smaller(image).save(file, "JPEG", quality=_QUALITY)


def _smaller(image: Any) -> Any:
    scale = min(1.0, _LONGEST / max(image.size))
    return image.resize([max(1, round(side * scale)) for side in image.size])

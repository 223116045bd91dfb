"""What a run found in pictures, as files: masks or boxes, and pictures with these drawn over them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peftbench.errors import UserError
from peftbench.files import atomic_write, expanded, is_there, make_folder, parse_json, write_json
from peftbench.tasks.detection.coco import Annotated, coco_content
from peftbench.tasks.detection.read import SHOWN_SCORE, Box
from peftbench.tasks.image.files import as_text, open_image
from peftbench.tasks.image.overlay import with_boxes, with_mask
from peftbench.tasks.segmentation.masks import write_mask

BOXES = "boxes.json"


class Written(NamedTuple):
    """What was written of one picture.

    Attributes:
        picture: its file. found: by class, the share of its pixels (0 to 1) or the number of boxes.
        files: what was written, by what it shows: `mask`, `overlay`.
    """

    picture: str
    found: dict[str, float]
    files: dict[str, str]


def write_masks(folder: Path, answers: Iterable[tuple[str, np.ndarray]], classes: Sequence[str]) -> Iterator[Written]:
    """Write `masks/NAME.png` and `overlays/NAME.jpg` for each picture, as they come.

    Raises UserError for a mask that is there without an overlay: somebody drew it.
    """
    names = _Names()
    for picture, mask in answers:
        name = names.of(picture)
        files = {"mask": folder / "masks" / f"{name}.png", "overlay": folder / "overlays" / f"{name}.jpg"}
        if files["mask"].exists() and not files["overlay"].exists():
            raise UserError(f"{files['mask']} is no answer of an earlier predict: give --output another folder")
        for path in files.values():
            make_folder(path.parent)
        _write_picture(files["overlay"], with_mask(open_image(expanded(picture), picture), mask, classes))
        write_mask(files["mask"], mask)  # behind the overlay, without which the next predict takes it for a drawn one
        shares = np.bincount(mask.ravel(), minlength=len(classes)) / mask.size
        found = {label: float(share) for label, share in zip(classes, shares, strict=True) if share}
        yield Written(picture, found, {kind: str(path) for kind, path in files.items()})


def write_boxes(folder: Path, answers: Iterable[tuple[str, list[Box]]], classes: Sequence[str]) -> Iterator[Written]:
    """Write `overlays/NAME.jpg` for each picture, as they come, and after the last all boxes to boxes.json.

    Drawn and counted are boxes with a score of at least `tasks.detection.read.SHOWN_SCORE`. Raises UserError for a
    boxes.json that is there and holds no answers.
    """
    if is_there(folder / BOXES) and not _holds_answers(folder / BOXES):
        raise UserError(f"{folder / BOXES} is no answer of an earlier predict: give --output another folder")
    overlays = _Names()
    pictures, found = [], []
    for picture, boxes in answers:
        make_folder(folder / "overlays")
        image = open_image(expanded(picture), picture)
        sure = [box for box in boxes if box.score >= SHOWN_SCORE]
        path = folder / "overlays" / f"{overlays.of(picture)}.jpg"
        _write_picture(path, with_boxes(image, _shares(sure, image, classes), classes, [box.score for box in sure]))
        pictures.append(Annotated(as_text(picture), image.width, image.height, np.zeros((0, 6))))
        found.append(boxes)
        counts = {label: float(sum(box.label == label for box in sure)) for label in classes}
        yield Written(picture, {label: count for label, count in counts.items() if count}, {"overlay": str(path)})
    if not pictures:
        return
    names = Counter(Path(picture.file).name for picture in pictures)
    pictures = [  # by the path where pictures of several folders have one name
        picture._replace(file=name) if names[name := Path(picture.file).name] == 1 else picture for picture in pictures
    ]
    write_json(folder / BOXES, coco_content(pictures, classes, found))


def _holds_answers(path: Path) -> bool:
    """Tell whether a file of boxes is of an earlier predict: each box has a score, which boxes that are true lack."""
    try:
        content = parse_json(path.read_bytes())
        return bool(content["images"]) and all("score" in box for box in content["annotations"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


class PictureOutput(NamedTuple):
    """How the answers of one kind of task are written and told.

    Attributes:
        write: (folder, pictures with their answers, classes) → what was written of each picture, as they come.
        describe: (class, its entry in `Written.found`) → in words. files: the written ones, in words.
    """

    write: Callable[[Path, Iterable[tuple[str, Any]], Sequence[str]], Iterator[Written]]
    describe: Callable[[str, float], str]
    files: str


# by the kind of task
PICTURE_OUTPUTS = {
    "segmentation": PictureOutput(
        write_masks, lambda label, share: f"{label} {100 * share:.1f} %", "masks and overlays"
    ),
    "detection": PictureOutput(write_boxes, lambda label, count: f"{count:.0f} {label}", f"overlays and {BOXES}"),
}


def _shares(boxes: Sequence[Box], image: Any, classes: Sequence[str]) -> np.ndarray:
    """Return boxes as (n, 5): class, centre x and y, width and height, the last four as shares of the image's size."""
    number = {name: index for index, name in enumerate(classes)}
    rows = [[number[b.label], b.x + b.width / 2, b.y + b.height / 2, b.width, b.height] for b in boxes]
    return np.array(rows).reshape(-1, 5) / [1, image.width, image.height, image.width, image.height]


def _write_picture(path: Path, image: Any) -> None:
    with atomic_write(path, binary=True) as file:
        image.save(file, "JPEG", quality=90)


class _Names:
    """Names of files for pictures, each its own: pictures of several folders may have the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, picture: str) -> str:
        stem, number = Path(picture).stem, 2
        name = stem
        while name in self._taken:
            name, number = f"{stem}_{number}", number + 1
        self._taken.add(name)
        return name

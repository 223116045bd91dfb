"""Boxes as COCO's JSON holds them: read and checked, and detections written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peftbench.errors import UserError
from peftbench.files import parse_json, write_json

_EDGE = 1.0  # pixels that a box may stand out of its picture by, as rounding makes them


class Annotated(NamedTuple):
    """A picture and its boxes.

    Attributes:
        file: its name. width, height: in pixels.
        boxes: (boxes, 6): class, x and y of the centre, width, height in shares of the picture, crowd.
    """

    file: str
    width: int
    height: int
    boxes: np.ndarray


def read_categories(path: Path) -> dict[int, str]:
    """Return the names of the categories by their id, in the order of the ids; UserError for a damaged file."""
    categories = _entries(path, _read(path), "categories")
    try:
        names = {int(entry["id"]): str(entry["name"]) for entry in sorted(categories, key=lambda entry: entry["id"])}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: a category needs an id (a number) and a name") from error
    if not names or len({*names.values()}) < len(categories):
        raise UserError(f"{path}: its categories must have different ids and names, and there must be one")
    return names


def read_annotations(path: Path, classes: Sequence[str]) -> list[Annotated]:
    """Return the pictures of a COCO file with their boxes, in the file's order.

    Args:
        classes: names by class number, as `read_categories` of the training file gave them.

    Raises UserError, naming the file and the entry, for one that is damaged, a box outside its picture or of no area,
    and a category that is not among `classes`.
    """
    content = _read(path)
    names = read_categories(path)
    number = {name: index for index, name in enumerate(classes)}
    boxes: dict[int, list[list[float]]] = {}
    pictures: dict[int, tuple[str, int, int]] = {}
    for entry in _entries(path, content, "images"):
        try:
            pictures[entry["id"]] = str(entry["file_name"]), int(entry["width"]), int(entry["height"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: an image needs id, file_name, width and height: {str(entry)[:80]}") from error
        if min(pictures[entry["id"]][1:]) < 1:
            raise UserError(f"{path}: image {pictures[entry['id']][0]} has no pixels by its width and height")
    for entry in _entries(path, content, "annotations"):
        shown = f"{path}, annotation {entry.get('id') if isinstance(entry, Mapping) else entry}"
        try:
            picture, category, box = entry["image_id"], entry["category_id"], [float(side) for side in entry["bbox"]]
            if len(box) != 4:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{shown}: it needs image_id, category_id and bbox (x, y, width, height)") from error
        if picture not in pictures:
            raise UserError(f"{shown}: there is no image {picture}")
        if names.get(category) not in number:
            raise UserError(f"{shown}: category {category} is not among the classes {', '.join(classes)}")
        file, width, height = pictures[picture]
        found = _in_shares(box, width, height, f"{shown} of {file}")
        boxes.setdefault(picture, []).append([number[names[category]], *found, float(bool(entry.get("iscrowd")))])
    none = np.zeros((0, 6), np.float32)
    return [
        Annotated(file, width, height, np.array(boxes[picture], np.float32) if picture in boxes else none)
        for picture, (file, width, height) in pictures.items()
    ]


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; a COCO file of boxes belongs there") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error


def _entries(path: Path, content: Any, key: str) -> list[Any]:
    entries = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise UserError(f"{path}: no list of {key}; it must be a COCO file with images, annotations and categories")
    return entries


def _in_shares(box: list[float], width: int, height: int, shown: str) -> list[float]:
    """Return centre and size in shares of the picture; UserError for a box outside of it or of no area."""
    x, y, wide, high = box
    drawn = ", ".join(f"{side:g}" for side in box)
    if not all(map(math.isfinite, box)) or wide <= 0 or high <= 0:
        raise UserError(f"{shown}: the box [{drawn}] has no area: correct it or leave it out")
    if x < -_EDGE or y < -_EDGE or x + wide > width + _EDGE or y + high > height + _EDGE:
        raise UserError(f"{shown}: the box [{drawn}] lies outside the picture of {width} x {height} pixels")
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + wide, width), min(y + high, height)
    return [(left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height]


def coco_boxes(detections: np.ndarray, width: int, height: int, image: Any) -> list[dict[str, Any]]:
    """Return detections of one picture as COCO's results hold them, categories from 1 on.

    Args:
        detections: (detections, 6): class, score, x and y of the centre, width, height in shares of the picture.
    """
    return [
        {
            "image_id": image,
            "category_id": int(kind) + 1,
            "bbox": [
                round((x - wide / 2) * width, 2),
                round((y - high / 2) * height, 2),
                round(wide * width, 2),
                round(high * height, 2),
            ],
            "score": round(score, 5),
        }
        for kind, score, x, y, wide, high in detections.tolist()
    ]


def write_results(path: Path, found: Iterable[dict[str, Any]]) -> None:
    """Write detections as a COCO file of results."""
    write_json(path, list(found))

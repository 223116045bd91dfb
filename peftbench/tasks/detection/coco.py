"""Boxes as COCO's JSON holds them: read and checked, and detections in the same form."""

import math
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peftbench.errors import UserError
from peftbench.files import parse_json
from peftbench.tasks.image.files import LARGEST_SIDE

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
    return _categories(path, _read(path))


def _categories(path: Path, content: Any) -> dict[int, str]:
    categories = _entries(path, content, "categories")
    try:
        names = {int(entry["id"]): str(entry["name"]) for entry in sorted(categories, key=lambda entry: entry["id"])}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
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
    names = _categories(path, content)
    number = {name: index for index, name in enumerate(classes)}
    boxes: dict[int, list[list[float]]] = {}
    pictures: dict[int, tuple[str, int, int]] = {}
    ids: dict[str, Any] = {}
    for count, entry in enumerate(_entries(path, content, "images"), start=1):
        try:
            file, width, height = entry["file_name"], int(entry["width"]), int(entry["height"])
            pictures[entry["id"]] = file, width, height
            if not isinstance(file, str):
                raise TypeError
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: an image needs id, file_name, width and height: {str(entry)[:80]}") from error
        if len(pictures) < count:
            raise UserError(f"{path}: two images have the id {entry['id']}")
        if not 1 <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
            raise UserError(f"{path}: image {file}: width and height must be 1 to {LARGEST_SIDE:,} pixels")
        if ids.setdefault(posixpath.normpath(file), entry["id"]) != entry["id"]:
            raise UserError(f"{path}: image {file} stands there twice: give all its boxes one image_id")
    for entry in _entries(path, content, "annotations"):
        shown = f"{path}, annotation {entry.get('id') if isinstance(entry, Mapping) else entry}"
        try:
            picture, category, box = entry["image_id"], entry["category_id"], [float(side) for side in entry["bbox"]]
            if len(box) != 4 or isinstance(entry["bbox"], str):
                raise ValueError
            category = int(category) if isinstance(category, str) else category
            if isinstance(picture, str) and picture not in pictures and picture.isdecimal():
                picture = int(picture)
            crowd = float(int(entry.get("iscrowd") or 0) != 0)
            known = picture in pictures, names.get(category) in number  # TypeError of what can be no id
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{shown}: it needs image_id, category_id and bbox (x, y, width, height)") from error
        if not known[0]:
            raise UserError(f"{shown}: there is no image {picture}")
        if not known[1]:
            raise UserError(f"{shown}: category {category} is not among the classes {', '.join(classes)}")
        file, width, height = pictures[picture]
        found = _in_shares(box, width, height, f"{shown} of {file}")
        boxes.setdefault(picture, []).append([number[names[category]], *found, crowd])
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
    if right <= left or bottom <= top:
        raise UserError(f"{shown}: the box [{drawn}] lies on the edge of the picture of {width} x {height} pixels")
    return [(left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height]


def coco_content(
    pictures: Sequence[Annotated], classes: Sequence[str], found: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """Return detections as a COCO file holds them, each annotation with its score.

    Args:
        pictures: what was looked at, with its size; ids are from 1 on, those of categories too.
        classes: names by number. found: of each picture, the boxes (`read.Box`), in pixels.
    """
    number = {name: index + 1 for index, name in enumerate(classes)}
    images = [
        {"id": index + 1, "file_name": picture.file, "width": picture.width, "height": picture.height}
        for index, picture in enumerate(pictures)
    ]
    annotations = [
        {
            "id": 0,
            "image_id": index + 1,
            "category_id": number[box.label],
            "bbox": [_short(side) for side in (box.x, box.y, box.width, box.height)],
            "area": _short(box.width * box.height),
            "iscrowd": 0,
            "score": round(box.score, 5),
        }
        for index, boxes in enumerate(found)
        for box in boxes
    ]
    for index, annotation in enumerate(annotations):
        annotation["id"] = index + 1
    categories = [{"id": number, "name": name} for name, number in number.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _short(pixels: float) -> float:
    return float(f"{pixels:.6g}")

"""Average precision of boxes as COCO defines it, matched by pycocotools; without torch.

Boxes are in shares of the picture: overlaps are the same in any unit, and no score here asks how large an object is.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from peftbench.errors import UserError, nearest

METRICS = ("ap", "ap50", "ap75")
PICTURE = -2  # class of the row of labels that is no object but the part of a padded picture that is no padding
MOST_DETECTIONS = 100  # of a picture, that COCO scores
_AT = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}  # of the overlaps 0.50, 0.55 … 0.95
_RECALLS = np.linspace(0, 1, 101)
_AT_ONCE = 1_000_000  # numbers of an array over draws and detections


class Matches(NamedTuple):
    """What became of the detections of one class, the surest first, and how many objects there are.

    Attributes:
        example: (detections,) of which picture. matched: (overlaps, detections) whether it is an object's.
        counted: (overlaps, detections) whether it counts at all: not where it lies on a crowd.
        objects: (examples,) how many each picture has.
    """

    example: np.ndarray
    matched: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise UserError for a metric that does not judge boxes, and without pycocotools, which computes them."""
    if find_spec("pycocotools") is None:
        raise UserError("scores of boxes need pycocotools: pip install 'peftbench[vision]'")
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"task.metrics: {name!r} does not judge boxes. {nearest(name, METRICS)}")


def match(labels: np.ndarray, detections: np.ndarray, classes: int) -> list[Matches]:
    """Match detections with objects, class by class.

    Args:
        labels: (examples, boxes, 6): class (-1: there is none), x and y of the centre, width, height, crowd.
        detections: (examples, most, 6): class, score, x and y of the centre, width, height; of no score: there is none.

    Detections are cut to the picture, those in its padding left out.
    """
    detections = cut_to_picture(labels, detections)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    examples = len(labels)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(examples)],
            "categories": [{"id": kind} for kind in range(classes)],
            "annotations": list(_annotations(labels)),
        }
        truth.createIndex()
        found = list(_results(detections))
        evaluation = COCOeval(truth, truth.loadRes(found) if found else COCO(), "bbox")
        evaluation.params.imgIds = list(range(examples))
        evaluation.params.catIds = list(range(classes))
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MOST_DETECTIONS]
        evaluation.evaluate()
    overlaps = len(evaluation.params.iouThrs)
    by_class = [evaluation.evalImgs[kind * examples : (kind + 1) * examples] for kind in range(classes)]
    return [_matches(of_class, overlaps) for of_class in by_class]


def cut_to_picture(labels: np.ndarray, detections: np.ndarray) -> np.ndarray:
    """Return detections cut to what a row of class `PICTURE` says is no padding; of no score where nothing is left."""
    low, high = (detections[..., 2:4] + sign * detections[..., 4:6] / 2 for sign in (-1, 1))
    shown = [row[row[:, 0] == PICTURE] for row in labels]
    edge = np.array([row[0, 3:5] if len(row) else (np.inf, np.inf) for row in shown], detections.dtype)[:, None]
    beyond = (high > edge).any(-1, keepdims=True)
    low, high = np.minimum(low, edge), np.minimum(high, edge)
    cut = np.concatenate([detections[..., :2], (low + high) / 2, high - low], -1)
    cut[..., 1] *= (high > low).all(-1)
    return np.where(beyond, cut, detections)


def _annotations(labels: np.ndarray) -> Iterator[dict[str, Any]]:
    number = 0
    for example, boxes in enumerate(labels):
        for kind, x, y, width, height, crowd in boxes[boxes[:, 0] >= 0].tolist():
            number += 1
            box = [x - width / 2, y - height / 2, width, height]
            yield {
                "id": number,
                "image_id": example,
                "category_id": int(kind),
                "bbox": box,
                "area": width * height,
                "iscrowd": int(crowd),
            }


def _results(detections: np.ndarray) -> Iterator[dict[str, Any]]:
    for example, boxes in enumerate(detections):
        for kind, score, x, y, width, height in boxes[boxes[:, 1] > 0].tolist():
            box = [x - width / 2, y - height / 2, width, height]
            yield {"image_id": example, "category_id": int(kind), "bbox": box, "score": score}


def _matches(pictures: Sequence[dict[str, Any] | None], overlaps: int) -> Matches:
    objects = np.array([0 if found is None else int((found["gtIgnore"] == 0).sum()) for found in pictures])
    there = [(number, found) for number, found in enumerate(pictures) if found is not None]
    example = np.concatenate([np.full(len(found["dtScores"]), number) for number, found in there] or [np.empty(0, int)])
    scores = np.concatenate([found["dtScores"] for _, found in there] or [np.empty(0)])
    order = np.argsort(-scores, kind="mergesort")
    none = np.zeros((overlaps, 0))
    matched = np.concatenate([none, *(found["dtMatches"] for _, found in there)], 1)[:, order] > 0
    ignored = np.concatenate([none, *(found["dtIgnore"] for _, found in there)], 1)[:, order] > 0
    return Matches(example[order], matched & ~ignored, ~ignored, objects)


def average_precision(matches: Sequence[Matches], draws: np.ndarray | None = None) -> np.ndarray:
    """Return the average precision of each class at each overlap, (draws, classes, overlaps); NaN without objects.

    Args:
        matches: of each class. draws: (draws, examples), how often each draw takes each picture; None: each once.
    """
    if draws is None:
        draws = np.ones((1, len(matches[0].objects)))
    step = max(1, _AT_ONCE // max(1, *(len(m.example) for m in matches)))
    parts = (draws[start : start + step].astype(float) for start in range(0, len(draws), step))
    return np.concatenate([np.stack([_of_class(of_class, part) for of_class in matches], 1) for part in parts])


def _of_class(matches: Matches, draws: np.ndarray) -> np.ndarray:
    """Take the highest precision at or behind each of 101 recalls, and their mean, as COCO does."""
    objects, drawn = draws @ matches.objects, draws[:, matches.example]
    known = objects > 0
    found = np.full((len(draws), len(matches.matched)), np.nan)
    for overlap, (matched, counted) in enumerate(zip(matches.matched, matches.counted, strict=True)):
        hits, all_ = (np.cumsum(drawn * chosen, 1)[:, matched] for chosen in (matched, counted))
        precision = np.divide(hits, all_, out=np.zeros_like(hits), where=all_ > 0)
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        recall = np.divide(hits, objects[:, None], out=np.zeros_like(hits), where=known[:, None])
        reached = np.searchsorted(_RECALLS, recall, side="right")
        reached[(hits == 0) | ~known[:, None]] = 0
        found[known, overlap] = (best * np.diff(reached, axis=1, prepend=0)).sum(1)[known] / len(_RECALLS)
    return found


def detection_score(metric: str, precision: np.ndarray) -> np.ndarray:
    """Return `ap`, `ap50` or `ap75` of each draw, of what `average_precision` gave; 0 where no class has objects."""
    chosen = precision[..., _AT[metric]]
    known = ~np.isnan(chosen)
    return np.where(known, chosen, 0).sum((1, 2)) / np.maximum(1, known.sum((1, 2)))

"""Scores of masks and boxes on resampled pictures: a picture is drawn with all its pixels, or all its objects."""

from collections.abc import Sequence

import numpy as np

from peftbench.tables.bootstrap import CHUNK, RESAMPLES, resamples
from peftbench.tasks.detection import average_precision as boxes
from peftbench.tasks.segmentation.confusion import METRICS as PIXEL_METRICS
from peftbench.tasks.segmentation.confusion import segmentation_score


def pixel_draws(confusions: np.ndarray, draws: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Return each seed's scores on the sample itself and on every draw, (1 + draws, seeds), by metric.

    `confusions` is (seeds, pictures, classes, classes), true class by row; `draws` are how many, a multiple of 1,000.
    """
    seeds, pictures, classes, _ = confusions.shape
    counts = resamples(pictures, draws)
    scores = {metric: np.empty((len(counts), seeds)) for metric in PIXEL_METRICS}
    for start in range(0, len(counts), CHUNK):
        chunk = counts[start : start + CHUNK].astype(np.float64)
        for seed in range(seeds):
            drawn = (chunk @ confusions[seed].reshape(pictures, -1)).reshape(-1, classes, classes)
            for metric, found in scores.items():
                found[start : start + CHUNK, seed] = segmentation_score(metric, drawn)
    return scores


def box_draws(labels: np.ndarray, detections: Sequence[np.ndarray], draws: int = RESAMPLES) -> dict[str, np.ndarray]:
    """Return each seed's scores on the sample itself and on every draw, (1 + draws, seeds), by metric.

    Args:
        labels: (pictures, boxes, 6). detections: of each seed, (pictures, detections, 6); see `tasks.detection`.
        draws: how many, a multiple of 1,000.
    """
    counts = resamples(len(labels), draws)
    scores = {metric: np.empty((len(counts), len(detections))) for metric in boxes.METRICS}
    for seed, found in enumerate(detections):
        classes = 1 + int(max(labels[..., 0].max(), found[..., 0].max()))
        matches = boxes.match(labels, found, classes)
        for start in range(0, len(counts), CHUNK):
            precision = boxes.average_precision(matches, counts[start : start + CHUNK].astype(np.float64))
            for metric, of_metric in scores.items():
                of_metric[start : start + CHUNK, seed] = boxes.detection_score(metric, precision)
    return scores

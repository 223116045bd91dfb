"""Uncertainty of scores: bootstrap over seeds and over the same evaluation examples, paired between rows.

One draw picks seeds and examples with replacement and scores every row on exactly these, so that what is easy
or hard about an example counts for both sides of a difference (Efron & Tibshirani 1993, §8; percentile
intervals, §13). Of s seeds s − 1 are drawn, which makes the draws vary as means of s seeds do (Rao & Wu 1988); one
seed tells nothing of how seeds vary, so its figures have no interval.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
_CHUNK = 1000

# (labels, predictions, counts) → score of each draw; labels and predictions (examples,), counts (draws, examples)
Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """An estimate and the interval around it; one of a single seed has none."""

    estimate: float
    low: float | None
    high: float | None

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside; no interval excludes anything."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def scaled(self, factor: float) -> "Interval":
        """Return it in another unit; `factor` is positive."""
        low, high = (None if end is None else factor * end for end in (self.low, self.high))
        return Interval(factor * self.estimate, low, high)


def score_interval(
    metric: str, labels: np.ndarray, predictions: np.ndarray, confidence: float = 0.95, classes: int | None = None
) -> Interval:
    """Return the mean score over seeds with its interval.

    Args:
        metric: accuracy | f1 | matthews | pearson | spearman.
        labels: (examples,). predictions: (seeds, examples), classes or scores.
        confidence: share of the draws inside the interval.
        classes: of the task; taken from what occurs where it is not given.
    """
    (draws,) = _draws(metric, labels, [predictions], classes)
    return _interval(draws, len(predictions), confidence)


def difference_interval(
    metric: str,
    labels: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    confidence: float = 0.95,
    classes: int | None = None,
) -> Interval:
    """Return mean(ours) − mean(theirs) with its interval, seeds and examples paired; arguments as above."""
    ours_draws, theirs_draws = _draws(metric, labels, [ours, theirs], classes)
    return _interval(ours_draws - theirs_draws, len(ours), confidence)


def ratio_interval(
    metric: str,
    labels: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    confidence: float = 0.95,
    classes: int | None = None,
) -> Interval | None:
    """Return mean(ours) / mean(theirs) with its interval, paired; None where theirs can be 0."""
    ours_draws, theirs_draws = _draws(metric, labels, [ours, theirs], classes)
    if np.any(theirs_draws <= 0):
        return None
    return _interval(ours_draws / theirs_draws, len(ours), confidence)


def _interval(draws: np.ndarray, seeds: int, confidence: float) -> Interval:
    """The first draw is the sample itself."""
    if seeds < 2:
        return Interval(float(draws[0]), None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws[1:], (tail, 1 - tail))
    return Interval(float(draws[0]), float(low), float(high))


def _draws(metric: str, labels: np.ndarray, rows: list[np.ndarray], classes: int | None) -> list[np.ndarray]:
    """Return for each row its mean score over the seeds: first of the sample, then of every draw."""
    seeds, examples = rows[0].shape
    if any(row.shape != (seeds, examples) for row in rows) or labels.shape != (examples,):
        raise ValueError(f"labels {labels.shape} and predictions {[row.shape for row in rows]} are not of one kind")
    scorer = _scorer(metric, classes or _classes(labels, rows))
    collected: list[list[np.ndarray]] = [[] for _ in rows]
    all_seed_counts, all_example_counts = _resamples(seeds, examples)
    for start in range(0, RESAMPLES + 1, _CHUNK):
        seed_counts = all_seed_counts[start : start + _CHUNK].astype(np.float64)
        example_counts = all_example_counts[start : start + _CHUNK].astype(np.float64)
        for row, draws in zip(rows, collected, strict=True):
            scores = np.stack([scorer(labels, predictions, example_counts) for predictions in row], axis=1)
            draws.append((scores * seed_counts).sum(axis=1) / seed_counts.sum(axis=1))
    return [np.concatenate(draws) for draws in collected]


@lru_cache(maxsize=2)
def _resamples(seeds: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each draw holds each seed and each example, (1 + RESAMPLES, …): first the sample itself."""
    generator = np.random.default_rng(0)

    def draw(size: int, taken: int) -> np.ndarray:
        chunks = [np.ones((1, size), np.uint8)]
        for _ in range(RESAMPLES // _CHUNK):
            # by chunks, since in its own type a draw over many examples is eight times as large
            chunks.append(generator.multinomial(taken, np.full(size, 1 / size), size=_CHUNK).astype(np.uint8))
        return np.concatenate(chunks)

    return draw(seeds, max(1, seeds - 1)), draw(examples, examples)


def _classes(labels: np.ndarray, rows: list[np.ndarray]) -> int:
    return int(max(labels.max(), *(row.max() for row in rows))) + 1


def _scorer(metric: str, classes: int) -> Scorer:
    if metric == "pearson":
        return _pearson
    if metric == "spearman":
        return _spearman
    from_confusion = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}[metric]

    def scorer(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
        cell = (labels * classes + predictions).astype(np.int64)
        confusion = counts @ np.eye(classes**2)[cell]
        return from_confusion(confusion.reshape(-1, classes, classes))

    return scorer


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    """(draws, true, predicted) → (draws,)."""
    return np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2))


def _f1(confusion: np.ndarray) -> np.ndarray:
    """F1 of class 1 of two, else the mean over the classes that occur, as `peftbench.tasks.metrics.f1`."""
    found = np.diagonal(confusion, axis1=1, axis2=2)
    size = confusion.sum(axis=1) + confusion.sum(axis=2)
    per_class = _divide(2 * found, size)
    if confusion.shape[1] <= 2:
        return per_class[:, 1] if confusion.shape[1] == 2 else np.zeros(len(confusion))
    return _divide(per_class.sum(axis=1), (size > 0).sum(axis=1))


def _matthews(confusion: np.ndarray) -> np.ndarray:
    predicted, true = confusion.sum(axis=1), confusion.sum(axis=2)
    total = predicted.sum(axis=1)
    covariance = np.trace(confusion, axis1=1, axis2=2) * total - (predicted * true).sum(axis=1)
    spread = (total**2 - (predicted**2).sum(axis=1)) * (total**2 - (true**2).sum(axis=1))
    return _divide(covariance, np.sqrt(np.maximum(spread, 0)))


def _pearson(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _correlation(counts, np.asarray(labels, float)[None], np.asarray(predictions, float)[None])


def _spearman(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _correlation(counts, _ranks(labels, counts), _ranks(predictions, counts))


def _correlation(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of x and y, (1 or draws, examples), each example taken `counts` times."""
    total = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / total
    y = y - (counts * y).sum(axis=1, keepdims=True) / total
    covariance = (counts * x * y).sum(axis=1)
    return _divide(covariance, np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)))


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean ranks within each draw, (draws, examples), of examples that are in it `counts` times."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    size = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(size, axis=1) - size
    return (below + (size + 1) / 2)[:, group]


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; 0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below > 0)

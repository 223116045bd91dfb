"""Scores of runs on resampled evaluation examples: every metric on many draws at once.

A draw takes as many examples as there are, with replacement (Efron & Tibshirani 1993, §6), and the same ones for
every run: what is easy or hard about an example counts for both sides of a difference.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 10_000
CHUNK = 1000
# classes, of all seeds together, that are counted at once: products of few columns cost as much as of these
_COLUMNS = 64

# (labels, predictions, counts) → scores; labels (examples,), predictions (…, examples), counts (draws, examples)
Scorer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def score_draws(
    metric: str, labels: np.ndarray, predictions: np.ndarray, classes: int | None = None, draws: int = RESAMPLES
) -> np.ndarray:
    """Return each seed's score on the sample itself (first) and on every draw, (1 + draws, seeds).

    Args:
        metric: accuracy | f1 | macro_f1 | roc_auc | matthews | pearson | spearman.
        labels: (examples,).
        predictions: (seeds, examples), classes or scores; probabilities, (seeds, examples, classes), for roc_auc.
        classes: of the task; taken from what occurs where it is not given.
        draws: how many, a multiple of 1,000.

    Raises ValueError where labels and predictions are not over the same examples.
    """
    if predictions.ndim != (3 if metric == "roc_auc" else 2) or labels.shape != predictions.shape[1:2]:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} are not over the same examples")
    scorer = _scorer(metric, classes or int(max(labels.max(), predictions.max())) + 1)
    counts = resamples(len(labels), draws)
    scores = np.empty((len(counts), len(predictions)), order="F")  # the draws of a seed together, which are taken so
    for start in range(0, len(counts), CHUNK):
        scores[start : start + CHUNK] = scorer(labels, predictions, counts[start : start + CHUNK].astype(np.float64))
    return scores


@lru_cache(maxsize=2)
def resamples(examples: int, draws: int = RESAMPLES) -> np.ndarray:
    """Return how often each draw holds each example, (1 + draws, examples): first the sample itself."""
    generator = np.random.default_rng(0)
    chunks = [np.ones((1, examples), np.uint8)]
    for _ in range(draws // CHUNK):
        # by chunks, since in its own type a draw over many examples is eight times as large
        chunks.append(generator.multinomial(examples, np.full(examples, 1 / examples), size=CHUNK).astype(np.uint8))
    return np.concatenate(chunks)


def _scorer(metric: str, classes: int) -> Scorer:
    """Return the function that scores all seeds: predictions (seeds, …) to (draws, seeds)."""
    ranked = {"pearson": _pearson, "spearman": _spearman, "roc_auc": _roc_auc}
    if metric in ranked:
        of_seed = ranked[metric]
        return lambda labels, predictions, counts: np.stack(
            [of_seed(labels, seed_predictions, counts) for seed_predictions in predictions], axis=1
        )
    if metric == "accuracy":
        return _accuracy
    of_classes = {"f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews}[metric]

    def scorer(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
        # a confusion matrix's diagonal and sums are all that is needed: of many classes it would not fit into memory
        true = counts @ _indicator(labels[None], classes)
        scores = np.empty((len(counts), len(predictions)))
        step = max(1, _COLUMNS // classes)
        for first in range(0, len(predictions), step):
            some = predictions[first : first + step]
            predicted, right = (
                (counts @ _indicator(some, classes, of)).reshape(len(counts), len(some), classes)
                for of in (None, some == labels)
            )
            scores[:, first : first + step] = of_classes(right, true[:, None], predicted)
        return scores

    return scorer


def _accuracy(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    right: np.ndarray = counts @ (predictions == labels).T
    return right / counts.sum(axis=1, keepdims=True)


def _indicator(values: np.ndarray, classes: int, of: np.ndarray | None = None) -> Any:
    """Return a matrix, (examples, seeds × classes), with 1 where an example is of a class; sparse for many classes.

    Args:
        values: (seeds, examples), classes. of: the examples that count, likewise; None for all.
    """
    codes = np.asarray(values, np.int64).T  # (examples, seeds)
    if classes <= _COLUMNS:
        found = np.eye(classes)[codes]
        return (found if of is None else found * of.T[..., None]).reshape(len(codes), -1)
    from scipy.sparse import csr_array

    seeds = codes.shape[1]
    columns = codes + classes * np.arange(seeds)
    weights = np.ones(codes.shape) if of is None else of.T.astype(np.float64)
    rows = np.arange(0, codes.size + 1, seeds)
    return csr_array((weights.ravel(), columns.ravel(), rows), shape=(len(codes), seeds * classes))


# of right answers and of labels and predictions of each class, (draws, seeds or 1, classes), to (draws, seeds)


def _f1(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """F1 of class 1 of two, else macro F1, as `peftbench.tasks.metrics.f1`."""
    classes = right.shape[-1]
    if classes > 2:
        return _macro_f1(right, true, predicted)
    return _divide(2 * right, true + predicted)[..., 1] if classes == 2 else np.zeros(right.shape[:-1])


def _macro_f1(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur."""
    size = true + predicted
    return _divide(_divide(2 * right, size).sum(axis=-1), (size > 0).sum(axis=-1))


def _matthews(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    total = predicted.sum(axis=-1)
    covariance = right.sum(axis=-1) * total - (predicted * true).sum(axis=-1)
    spread = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
    return _divide(covariance, np.sqrt(np.maximum(spread, 0)))


def _roc_auc(labels: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Area of class 1 of two, else the mean over the classes, as `peftbench.tasks.metrics.roc_auc`."""
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas, defined = np.zeros(len(counts)), np.zeros(len(counts))
    for index in classes:
        positive = labels == index
        ranks, found = _ranks(probabilities[:, index], counts), counts[:, positive].sum(axis=1)
        above = (counts[:, positive] * ranks[:, positive]).sum(axis=1) - found * (found + 1) / 2
        pairs = found * (counts.sum(axis=1) - found)
        areas += _divide(above, pairs)
        defined += pairs > 0
    return np.where(defined > 0, _divide(areas, defined), 0.5)


def _pearson(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _correlation(counts, np.asarray(labels, float)[None], np.asarray(predictions, float)[None])


def _spearman(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return _correlation(counts, _ranks(labels, counts), _ranks(predictions, counts))


def _correlation(counts: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of x and y, (1 or draws, examples), each example taken `counts` times; 0 of a constant."""
    x, y = (_centred(counts, values) for values in (x, y))
    covariance = np.einsum("de,de,de->d", counts, x, y)
    return _divide(covariance, np.sqrt(np.einsum("de,de,de->d", counts, x, x) * np.einsum("de,de,de->d", counts, y, y)))


def _centred(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Subtract each draw's mean; what is left of equal values by rounding becomes 0."""
    mean = np.einsum("de,de->d", counts, values) / counts.sum(axis=1)
    centred = values - mean[:, None]
    centred[np.abs(centred) <= 1e-12 * np.abs(values).max()] = 0
    return centred


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

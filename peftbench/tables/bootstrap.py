"""Scores of runs on resampled evaluation examples: every metric on many draws at once.

A draw takes as many examples as there are, with replacement (Efron & Tibshirani 1993, §6), and the same ones for
every run: what is easy or hard about an example counts for both sides of a difference.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
CHUNK = 1000
# cells of confusion matrices that are counted at once: products of few columns cost as much as of these
_CELLS = 64

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
        draws: how many, in thousands.

    Raises ValueError where labels and predictions are not over the same examples.
    """
    if predictions.ndim != (3 if metric == "roc_auc" else 2) or labels.shape != predictions.shape[1:2]:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} are not over the same examples")
    scorer = _scorer(metric, classes or int(max(labels.max(), predictions.max())) + 1)
    counts = resamples(len(labels), draws)
    scores = np.empty((len(counts), len(predictions)))
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
    from_confusion = {"accuracy": _accuracy, "f1": _f1, "macro_f1": _macro_f1, "matthews": _matthews}[metric]

    def scorer(labels: np.ndarray, predictions: np.ndarray, counts: np.ndarray) -> np.ndarray:
        cells = (labels * classes + predictions).astype(np.int64)
        scores = np.empty((len(counts), len(cells)))
        step = max(1, _CELLS // classes**2)
        for first in range(0, len(cells), step):
            found = np.eye(classes**2)[cells[first : first + step].T]  # (examples, seeds, cells)
            confusion = counts @ found.reshape(len(found), -1)
            of_seeds = from_confusion(confusion.reshape(-1, classes, classes))
            scores[:, first : first + step] = of_seeds.reshape(len(counts), -1)
        return scores

    return scorer


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    """(draws, true, predicted) → (draws,)."""
    return np.trace(confusion, axis1=1, axis2=2) / confusion.sum(axis=(1, 2))


def _f1(confusion: np.ndarray) -> np.ndarray:
    """F1 of class 1 of two, else macro F1, as `peftbench.tasks.metrics.f1`."""
    if confusion.shape[1] > 2:
        return _macro_f1(confusion)
    per_class, _ = _class_f1(confusion)
    return per_class[:, 1] if confusion.shape[1] == 2 else np.zeros(len(confusion))


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur."""
    per_class, size = _class_f1(confusion)
    return _divide(per_class.sum(axis=1), (size > 0).sum(axis=1))


def _class_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(draws, classes) F1, and how often each class occurs among labels and predictions."""
    found = np.diagonal(confusion, axis1=1, axis2=2)
    size = confusion.sum(axis=1) + confusion.sum(axis=2)
    return _divide(2 * found, size), size


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

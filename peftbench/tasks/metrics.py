"""Scores of predictions against labels, as fractions; degenerate input scores 0.0."""

from collections.abc import Callable, Sequence

import numpy as np

from peftbench.errors import UserError, nearest


def score(
    metrics: Sequence[str], predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None
) -> dict[str, float]:
    """Return each metric's value: 0 to 1, correlations −1 to 1.

    Args:
        metrics: names out of `METRICS`.
        predictions: (examples,) class indices; for `pearson` and `spearman` scores.
        labels: (examples,) of the same kind.
        num_classes: of the task; decides between the F1 of class 1 (two classes) and macro F1 (more). Taken
            from the highest class that occurs where it is not given.

    Raises:
        UserError: an unknown metric.
    """
    check_metrics(metrics)
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} must be equally long vectors")
    if not len(labels):
        return dict.fromkeys(metrics, 0.0)
    values = {}
    for name in metrics:
        if name == "f1":
            values[name] = f1(predictions, labels, num_classes)
        else:
            values[name] = METRICS[name](predictions, labels)
    return values


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise UserError unless there is a metric and every name is known."""
    if not metrics:
        raise UserError(f"task.metrics is empty. {nearest('', METRICS)}")
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"task.metrics: unknown metric {name!r}. {nearest(name, METRICS)}")


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of the predictions that equal their label."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """F1 of class 1 where there are two classes, else the mean F1 of the classes that occur."""
    counts = _confusion(predictions, labels)
    found = np.diag(counts).astype(float)
    size = (counts.sum(0) + counts.sum(1)).astype(float)
    per_class = np.divide(2 * found, size, out=np.zeros_like(found), where=size > 0)
    if (num_classes or len(counts)) <= 2:
        return float(per_class[1]) if len(per_class) > 1 else 0.0
    return float(per_class[size > 0].mean())


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation, for any number of classes (Gorodkin's R_K)."""
    counts = _confusion(predictions, labels).astype(float)
    predicted, true, total = counts.sum(0), counts.sum(1), counts.sum()
    covariance = np.trace(counts) * total - predicted @ true
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation; 0.0 where either side is constant."""
    x = predictions.astype(np.float64) - np.mean(predictions, dtype=np.float64)
    y = labels.astype(np.float64) - np.mean(labels, dtype=np.float64)
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    if norm == 0 or _is_constant(predictions) or _is_constant(labels):
        return 0.0
    return float(np.clip(x @ y / norm, -1.0, 1.0))


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0.0 where either side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(predictions), rankdata(labels))


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.all(values == values[0]))


def _confusion(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(classes, classes) counts: true class by row, predicted class by column."""
    predictions, labels = predictions.astype(np.int64), labels.astype(np.int64)
    classes = int(max(predictions.max(), labels.max())) + 1
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
SCORE_METRICS = ("pearson", "spearman")

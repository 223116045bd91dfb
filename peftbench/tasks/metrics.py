"""Scores of predictions against labels, as fractions; degenerate input scores 0.0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from peftbench.errors import UserError, nearest


@dataclass(frozen=True)
class MetricInput:
    """What a metric is computed from.

    Attributes:
        predictions: (examples,) class indices, or scores. labels: (examples,) of the same kind.
        num_classes: of the task, 0 for scores.
        probabilities: (examples, classes), or None for scores.
    """

    predictions: np.ndarray
    labels: np.ndarray
    num_classes: int
    probabilities: np.ndarray | None = None


def score(
    metrics: Sequence[str],
    predictions: np.ndarray,
    labels: np.ndarray,
    num_classes: int | None = None,
    probabilities: np.ndarray | None = None,
) -> dict[str, float]:
    """Return each metric's value: 0 to 1, correlations −1 to 1.

    Args:
        metrics: names out of `METRICS`.
        predictions: (examples,) class indices; for `pearson` and `spearman` scores.
        labels: (examples,) of the same kind.
        num_classes: of the task; decides between the F1 of class 1 (two classes) and macro F1 (more). Taken
            from the highest class that occurs where it is not given.
        probabilities: (examples, classes), which `roc_auc` needs.

    Raises:
        UserError: an unknown metric.
    """
    check_metrics(metrics)
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1:
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} must be equally long vectors")
    if not len(labels):
        return dict.fromkeys(metrics, 0.0)
    if num_classes is None:
        num_classes = int(max(predictions.max(), labels.max())) + 1
    scored = MetricInput(predictions, labels, num_classes, probabilities)
    return {name: METRICS[name](scored) for name in metrics}


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise UserError unless there is a metric and every name is known."""
    if not metrics:
        raise UserError(f"task.metrics is empty. {nearest('', METRICS)}")
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"task.metrics: unknown metric {name!r}. {nearest(name, METRICS)}")


def accuracy(scored: MetricInput) -> float:
    """Share of the predictions that equal their label."""
    return float(np.mean(scored.predictions == scored.labels))


def f1(scored: MetricInput) -> float:
    """F1 of class 1 where there are two classes, else macro F1."""
    if scored.num_classes > 2:
        return macro_f1(scored)
    return float(class_f1(confusion_matrix(scored.predictions, scored.labels, 2))[1])


def macro_f1(scored: MetricInput) -> float:
    """Mean F1 of the classes that occur among labels or predictions."""
    confusion = confusion_matrix(scored.predictions, scored.labels, scored.num_classes)
    occur = confusion.sum(0) + confusion.sum(1) > 0
    return float(class_f1(confusion)[occur].mean())


def class_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 of each class, (classes,), of a confusion matrix; 0.0 for one that does not occur."""
    found = np.diag(confusion).astype(float)
    size = (confusion.sum(0) + confusion.sum(1)).astype(float)
    return np.divide(2 * found, size, out=np.zeros_like(found), where=size > 0)


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(classes, classes) counts: true class by row, predicted class by column."""
    cells = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def roc_auc(scored: MetricInput) -> float:
    """Area under the ROC curve of class 1 of two, else the mean of each class's against the rest.

    Classes without an example, or with all of them, are left out; 0.5 where none is left.
    """
    if scored.probabilities is None:
        raise ValueError("roc_auc needs the probabilities")
    classes = [1] if scored.num_classes == 2 else range(scored.num_classes)
    areas = [_area(scored.probabilities[:, index], scored.labels == index) for index in classes]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else 0.5


def _area(values: np.ndarray, positive: np.ndarray) -> float | None:
    """Probability that a positive example has the higher value, ties half (Mann and Whitney 1947)."""
    from scipy.stats import rankdata

    count = int(positive.sum())
    if not 0 < count < len(positive):
        return None
    below = rankdata(values)[positive].sum() - count * (count + 1) / 2
    return float(below / (count * (len(positive) - count)))


def matthews(scored: MetricInput) -> float:
    """Matthews correlation, for any number of classes (Gorodkin's R_K)."""
    counts = confusion_matrix(scored.predictions, scored.labels, scored.num_classes).astype(float)
    predicted, true, total = counts.sum(0), counts.sum(1), counts.sum()
    covariance = np.trace(counts) * total - predicted @ true
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def pearson(scored: MetricInput) -> float:
    """Pearson's correlation; 0.0 where either side is constant."""
    return _correlation(scored.predictions, scored.labels)


def spearman(scored: MetricInput) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0.0 where either side is constant."""
    from scipy.stats import rankdata

    return _correlation(rankdata(scored.predictions), rankdata(scored.labels))


def _correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    x = predictions.astype(np.float64) - np.mean(predictions, dtype=np.float64)
    y = labels.astype(np.float64) - np.mean(labels, dtype=np.float64)
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    if norm == 0 or _is_constant(predictions) or _is_constant(labels):
        return 0.0
    return float(np.clip(x @ y / norm, -1.0, 1.0))


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.all(values == values[0]))


METRICS: dict[str, Callable[[MetricInput], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "roc_auc": roc_auc,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
# of tasks whose labels are scores, not classes
CORRELATIONS = ("pearson", "spearman")

"""A split scored with the model that a run has trained: metrics and predictions."""

from typing import TYPE_CHECKING, Any, NamedTuple

from peftbench.config.schema import RunConfig
from peftbench.runs.predictions import Predictions

if TYPE_CHECKING:
    from peftbench.runs.prepare import Prepared
    from peftbench.tasks.base import Examples


class SplitScore(NamedTuple):
    """Metrics and predictions on a split, and what the method said of it."""

    metrics: dict[str, float]
    predictions: Predictions
    observed: dict[str, Any] | None


def reported_splits(prepared: "Prepared") -> list[str]:
    """Return the splits that are scored at the end: validation, and test where its labels are public."""
    return [
        name for name in ("validation", "test") if name in prepared.splits and prepared.splits[name].labels is not None
    ]


def score_split(prepared: "Prepared", config: RunConfig, data: "Examples") -> SplitScore:
    """Score a split that has labels; raises NonFiniteError where the model answers NaN or infinity."""
    from peftbench.training.inference import logits_of

    task = prepared.task
    assert data.labels is not None
    trainer = config.trainer
    with prepared.method.observed() as observation:
        logits = logits_of(prepared.backbone.model, data, trainer.eval_batch_size, trainer.precision, prepared.device)
    metrics = task.objective.score(task.metrics, logits, data.labels)
    answers = Predictions(data.labels, *task.objective.read_out(logits), form=task.objective.form)
    return SplitScore(metrics, answers, observation())

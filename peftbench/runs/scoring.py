"""A split scored with the model that a run has trained: metrics, predictions and their entry in the record."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from peftbench.config.schema import RunConfig
from peftbench.errors import NonFiniteError
from peftbench.runs.predictions import Predictions
from peftbench.runs.result import Evaluation

if TYPE_CHECKING:
    import torch

    from peftbench.runs.prepare import Prepared
    from peftbench.tasks.base import Examples, Task


class SplitScore(NamedTuple):
    """Metrics and predictions on a split.

    Attributes:
        metrics: by name, `loss` among them; empty where the labels are hidden.
        predictions: with the split's labels, None where they are hidden.
        observed: what the method said of the examples, see `methods.Method.observed`; None for nothing.
    """

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
    return score_logits(task, logits, data.labels, observation())


def score_logits(
    task: "Task", logits: "torch.Tensor", labels: Any, observed: dict[str, Any] | None = None
) -> SplitScore:
    """Return the metrics and predictions of a whole split from its logits, (examples, outputs).

    `labels`: a tensor, an array or a list with one entry an example; None where they are hidden. Raises NonFiniteError
    for a loss of no finite number.
    """
    import torch

    metrics = {} if labels is None else task.objective.score(task.metrics, logits, torch.as_tensor(labels))
    if not math.isfinite(metrics.get("loss", 0.0)):
        raise NonFiniteError(
            f"the loss is {metrics['loss']}, for the model's outputs are huge: train with a lower trainer.lr"
        )
    predictions = Predictions(labels, *task.objective.read_out(logits), form=task.objective.form)
    return SplitScore(metrics, predictions, observed)


def evaluation_of(task: "Task", split: str, score: SplitScore, precision: str, **conditions: Any) -> Evaluation:
    """Return the evaluation of a split whose labels are known, as the record keeps it.

    Args:
        task: that the split is of. precision: the forward pass' (fp32 or bf16).
        conditions: further fields of `Evaluation`: merged, dropped_layers, predictions …
    """
    predictions = score.predictions
    return Evaluation(
        split,
        len(predictions.predictions),
        {**score.metrics},
        precision,
        task.checksums[split],
        by_class=task.objective.by_class(predictions.predictions, predictions.labels),
        observed=score.observed,
        **conditions,
    )

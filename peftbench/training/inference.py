"""A model's logits over a split, and what they say: predictions, probabilities, scores."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from peftbench.tasks.metrics import score
from peftbench.tasks.text.batching import Encoded
from peftbench.training.loop import autocasting, to_device


@torch.inference_mode()
def logits_of(model: nn.Module, data: Encoded, batch_size: int, precision: str, device: torch.device) -> torch.Tensor:
    """Return the logits of a split in the order of its rows, (rows, outputs), float32 on the CPU."""
    training = model.training
    model.eval()
    autocast = autocasting(precision, device)
    found: list[torch.Tensor] = []
    order: list[int] = []
    for indices, batch in data.in_order(batch_size):
        batch.pop("labels", None)
        with autocast:
            found.append(model(**to_device(batch, device)).logits.float())
        order += indices
    model.train(training)
    together = torch.cat(found).cpu()
    logits = torch.empty_like(together)
    logits[order] = together
    return logits


def read_out(logits: torch.Tensor, regression: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return predictions (classes, or scores for a regression) and probabilities, (rows, classes) or None."""
    if regression:
        return logits.squeeze(-1).numpy(), None
    return logits.argmax(-1).numpy(), logits.softmax(-1).numpy()


def scores_of(logits: torch.Tensor, labels: torch.Tensor, metrics: Sequence[str], regression: bool) -> dict[str, float]:
    """Return the metrics and the loss of a split."""
    predictions, _ = read_out(logits, regression)
    if regression:
        loss = torch.nn.functional.mse_loss(logits.squeeze(-1), labels.float())
    else:
        loss = torch.nn.functional.cross_entropy(logits, labels)
    return {**score(metrics, predictions, labels.numpy(), logits.shape[-1]), "loss": loss.item()}

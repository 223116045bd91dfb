"""A model's logits over a split."""

import torch
from torch import nn

from peftbench.tasks.base import Examples
from peftbench.training.devices import autocasting
from peftbench.training.loop import to_device


@torch.inference_mode()
def logits_of(model: nn.Module, data: Examples, batch_size: int, precision: str, device: torch.device) -> torch.Tensor:
    """Return the logits of a split in the order of its rows, (rows, outputs), float32 on the CPU."""
    training = model.training
    model.eval()
    autocast = autocasting(precision, device)
    found: list[torch.Tensor] = []
    order: list[int] = []
    for indices in data.in_order(batch_size):
        batch = data.batch(indices)
        batch.pop("labels", None)
        with autocast:
            found.append(model(**to_device(batch, device)).logits.float())
        order += indices
    model.train(training)
    together = torch.cat(found).cpu()
    logits = torch.empty_like(together)
    logits[order] = together
    return logits

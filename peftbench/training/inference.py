"""A model's logits over a split."""

import torch
from torch import nn

from peftbench.tasks.base import Examples
from peftbench.training.batches import batches_of
from peftbench.training.devices import autocasting


@torch.inference_mode()
def logits_of(model: nn.Module, data: Examples, batch_size: int, precision: str, device: torch.device) -> torch.Tensor:
    """Return the logits of a split in the order of its rows, (rows, outputs), float32 on the CPU."""
    training = model.training
    model.eval()
    autocast = autocasting(precision, device)
    found: list[torch.Tensor] = []
    order = data.in_order(batch_size)
    with batches_of(data, order, device) as batches:
        for batch in batches:
            batch.pop("labels", None)
            with autocast:
                found.append(model(**batch).logits.float())
    model.train(training)
    together = torch.cat(found).cpu()
    logits = torch.empty_like(together)
    logits[[row for indices in order for row in indices]] = together
    return logits

"""A model's logits over a split."""

import torch
from torch import nn

from peftbench.errors import NonFiniteError
from peftbench.interruption import check_interrupted
from peftbench.tasks.base import Examples
from peftbench.training.batches import batches_of
from peftbench.training.devices import autocasting, padding_multiple


@torch.inference_mode()
def logits_of(model: nn.Module, data: Examples, batch_size: int, precision: str, device: torch.device) -> torch.Tensor:
    """Return the logits of a split in the order of its rows, (rows, outputs), float32 on the CPU.

    Raises NonFiniteError where one is NaN or infinite, KeyboardInterrupt between two batches where a signal has come.
    """
    training = model.training
    model.eval()
    autocast = autocasting(precision, device)
    order = data.in_order(batch_size)
    logits = torch.empty(0)
    with batches_of(data, order, device, padding_multiple(precision, device)) as batches:
        for indices, batch in zip(order, batches, strict=True):
            check_interrupted()
            batch.pop("labels", None)
            with autocast:
                of_batch = model(**batch).logits.float()
            if not len(logits):  # all at once would take the device's memory, and twice this machine's
                logits = torch.empty((sum(map(len, order)), *of_batch.shape[1:]))
            logits[torch.as_tensor(indices)] = of_batch.cpu()
    model.train(training)
    if not logits.isfinite().all():
        raise NonFiniteError(
            "the model's outputs are not finite (NaN or infinite): train with a lower trainer.lr, or in fp32"
        )
    return logits

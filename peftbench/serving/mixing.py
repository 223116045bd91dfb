"""One pass of a backbone for a batch in which rows have methods and heads of their own."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from peftbench.backbones.attachments import Attachment
from peftbench.backbones.economy.attach import cheap_kernels
from peftbench.backbones.economy.first_token import FirstTokenOnly, head_reads_first_token
from peftbench.backbones.economy.frozen import Casts, frozen_in_bf16
from peftbench.backbones.economy.same_rows import repeat_rows
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.row_parameters import row_parameters
from peftbench.backbones.rows import Rows
from peftbench.methods import Method
from peftbench.tasks.base import Batch
from peftbench.training.devices import autocasting

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Mixer:
    """A backbone under a head as wide as any task's.

    Attributes:
        backbone: with nothing attached.
        precision: fp32 or bf16.
        reads_first_token_only: whether the head reads the first token alone.
    """

    backbone: HeadedBackbone
    precision: str
    reads_first_token_only: bool
    # of the backbone's own weights
    casts: Casts = field(default_factory=WeakTensorKeyDictionary)

    @torch.inference_mode()
    def logits(
        self,
        batch: Batch,
        methods: Sequence[tuple[Method, Rows]],
        heads: Sequence[tuple[Tensors, Rows]],
        repeated: tuple[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the logits of a batch, (rows, outputs), float32.

        Args:
            batch: on the backbone's device.
            methods: detached, each with the rows it acts on; stacked for several groups. Others have the bare backbone.
            heads: the head's tensors by their names in the model, with their rows.
            repeated: where the batch holds different rows alone: the layer in front of which nothing acts, and for
                each row of the whole batch, (rows,), which of them it is.
        """
        model, sites = self.backbone.model, self.backbone.sites
        alone = len(methods) == 1 and methods[0][1].all and methods[0][1].groups == 1
        if not alone:
            batch = _with_room(batch, methods, sites.base.config)
        with ExitStack() as stack:
            for method, rows in methods:
                stack.enter_context(method.on(sites if alone else replace(sites, rows=rows)))
            for tensors, rows in heads:
                attachment = Attachment(partial(row_parameters, model, rows, tensors))
                sites.attachments.add(attachment)
                stack.callback(sites.attachments.remove, attachment)
            if repeated is not None:
                for handle in repeat_rows(sites, *repeated):
                    stack.callback(handle.remove)
            if self.reads_first_token_only and all(method.keeps_first_token for method, _ in methods):
                stack.callback(FirstTokenOnly(sites).remove)
            if self.precision == "bf16":
                trained = [parameter for method, _ in methods for parameter in method.parameters()]
                stack.enter_context(frozen_in_bf16(sites.base, self.casts, trained))
            stack.enter_context(cheap_kernels(sites.device))
            stack.enter_context(autocasting(self.precision, sites.device))
            logits: torch.Tensor = model(**batch).logits.float()
            return logits


def mixer(backbone: HeadedBackbone, precision: str) -> Mixer:
    """Return the mixer of a backbone that nothing is attached to."""
    return Mixer(backbone, precision, head_reads_first_token(backbone.sites))


def _with_room(batch: Batch, methods: Sequence[tuple[Method, Rows]], config: Any) -> Batch:
    """Return the batch with padding behind its rows, where methods put rows of their own into the sequences.

    The mask lets as many positions more be seen as a row gets; what enters the first layer is moved by as many.
    """
    room = max((method.inserted_tokens for method, _ in methods), default=0)
    if room == 0:
        return batch
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    seen = (torch.ones_like(ids) if mask is None else mask).sum(1)
    for method, rows in methods:
        seen[rows.start : rows.stop] += method.inserted_tokens
    fill = {"input_ids": config.pad_token_id or 0}
    wide = {
        name: F.pad(column, (0, room), value=fill.get(name, 0))
        for name, column in batch.items()
        if name != "attention_mask"
    }
    width = ids.shape[1] + room
    if int(seen.min()) < width:
        wide["attention_mask"] = (torch.arange(width, device=ids.device) < seen[:, None]).long()
    return wide

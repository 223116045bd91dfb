"""A prepared run with its method attached for training, and with what saves time and memory (backbones/economy)."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from peftbench.backbones.economy.attach import economical
from peftbench.backbones.economy.lower_layers import COLUMN, beginning_behind, states_behind
from peftbench.config.schema import TrainerConfig
from peftbench.runs.prepare import Prepared
from peftbench.tasks.base import Batch, Examples
from peftbench.training.devices import autocasting, padding_multiple
from peftbench.training.kept_states import with_states

# the splits that are read in every epoch
_KEPT = ("train", "validation")


@contextmanager
def attached_for_training(prepared: Prepared, trainer: TrainerConfig) -> Iterator[Mapping[str, Examples]]:
    """Attach the method inside the block; yields the splits to train and score on, by name.

    With `trainer.cache_frozen` the output of the layers below the method is computed once for each example, and comes
    with the batches.
    """
    sites, method = prepared.backbone.sites, prepared.method
    with economical(
        sites,
        method,
        prepared.reads_first_token_only,
        trainer.precision,
        trainer.compile,
        checkpointing=trainer.checkpointing,
    ):
        if not trainer.cache_frozen:
            yield prepared.splits
            return
        first = method.first_layer(sites)
        kept = {name: _with_states(prepared, trainer, first, name) for name in _KEPT}
        with ExitStack() as beginning:
            with autocasting(trainer.precision, prepared.device):  # it looks at what the layers give
                beginning.enter_context(beginning_behind(sites, first))
            yield {**prepared.splits, **kept}


def _with_states(prepared: Prepared, trainer: TrainerConfig, first: int, split: str) -> Examples:
    model = prepared.backbone.model
    model.train(split == "train")  # attention has other kernels for training

    def compute(batch: Batch) -> torch.Tensor:
        with autocasting(trainer.precision, prepared.device), torch.set_grad_enabled(split == "train"):
            return states_behind(prepared.backbone.sites, first, batch)

    multiple = padding_multiple(trainer.precision, prepared.device)
    return with_states(prepared.splits[split], COLUMN, compute, trainer.eval_batch_size, prepared.device, multiple)

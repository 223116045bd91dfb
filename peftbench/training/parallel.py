"""Data-parallel training: several processes, begun by torchrun, train one run together.

Each takes its part of every batch, so that batch size, steps and result are those of one process; the gradients of
what trains are summed. The first process evaluates, writes and prints, and tells the others what they need.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed, nn

from peftbench.training.ending import Ending

# the others wait that long for the first one, which evaluates alone
_PATIENCE = timedelta(hours=6)

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """The processes that train together, and which of them this one is: 0 leads."""

    rank: int = 0
    count: int = 1

    def part(self, indices: Sequence[int]) -> Sequence[int]:
        """Return this process' examples of a batch, which may be none."""
        return indices[self.rank :: self.count]

    def from_first(self, make: Callable[[], T]) -> T:
        """Return in every process what `make` gave in the first; it runs nowhere else."""
        if self.count == 1:
            return make()
        box: list[Any] = [make() if self.rank == 0 else None]
        with _ending.explained():
            distributed.broadcast_object_list(box, src=0)
        return box[0]

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: torch.Tensor) -> torch.Tensor:
        """Put the sum over all processes into each gradient and return that of the loss.

        A parameter that no process has a gradient of keeps none.
        """
        if self.count == 1:
            return loss
        here = [p.grad is not None for p in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        anywhere = torch.tensor(here).to(loss)
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), anywhere, loss.view(1)])
        with _ending.explained():
            distributed.all_reduce(flat)
        *sums, anywhere, loss = flat.split([*(gradient.numel() for gradient in gradients), len(here), 1])
        reached = here if all(here) else anywhere.tolist()
        for parameter, gradient, total, has_gradient in zip(parameters, gradients, sums, reached, strict=True):
            parameter.grad = total.view_as(gradient) if has_gradient else None
        return loss[0]

    def seed(self, seed: int, epoch: int) -> None:
        """Let each process but the first, which keeps its random state, draw its own dropout in this epoch."""
        if self.rank:
            torch.manual_seed(int(np.random.SeedSequence((seed, epoch, self.rank)).generate_state(1)[0]))


ALONE = Workers()
_joined = ALONE  # this process' group
_ending: Ending  # of the run that the group trains
_store: Any = None  # which outlasts the groups: a run that fails takes its own along
_runs = 0  # joined so far, the same number in all processes
_begun = False  # whether the first process has told the others what to train


@contextmanager
def joined_workers() -> Iterator[Workers]:
    """Inside the block this process is in one group with those that torchrun began beside it."""
    global _joined, _begun, _ending, _runs
    _runs += 1
    _meet()
    _joined, _begun = Workers(distributed.get_rank(), distributed.get_world_size()), False
    _ending = Ending(_store, f"end of run {_runs}", _joined.rank, _joined.count)
    try:
        yield _joined
        _end_together()
    except BaseException as error:
        if _begun or _joined.rank:  # the others may wait in the midst of the run, and end with the group
            _ending.announce(error)
            distributed.destroy_process_group()
        else:
            _end_together()
        raise
    finally:
        _joined = ALONE


def _end_together() -> None:
    """Leave the run when all do: where the first process fails behind the training, the others learn it here."""
    global _begun
    if _joined.rank == 0 and not _begun:
        _begun = True
        _joined.from_first(lambda: None)  # to `next_config`: there is nothing to train
    _joined.from_first(lambda: None)


def _meet() -> None:
    """Make the group of processes, which lasts from a command's first run to its last, or to one that fails."""
    global _store
    if distributed.is_initialized():
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if _store is None:
        _store, *_ = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        _store.set_timeout(_PATIENCE)
        atexit.register(_part)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = distributed.PrefixStore(f"run {_runs}", _store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)


def _part() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def begin_training(config: T) -> Workers:
    """Send `config` to the processes that wait in `next_config`; return all that train it together."""
    global _begun
    if _joined.count > 1:
        _begun = True
        _joined.from_first(lambda: config)
    return _joined


def next_config() -> Any:
    """Wait for what `begin_training` sends; None where the first process has nothing to train."""
    return _joined.from_first(lambda: None)

"""Batches made in a background thread while the device computes on those before."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Event, Thread

import torch

from peftbench.tasks.base import Batch, Examples

# enough that a long batch does not keep the device waiting; few enough to weigh nothing
_AHEAD = 4


@contextmanager
def batches_of(
    data: Examples, order: Sequence[Sequence[int]], device: torch.device, multiple: int = 1
) -> Iterator[Iterator[Batch]]:
    """Yield an iterator over the batches of a split, on `device`, in the order given.

    An exception while a batch is made is raised where that batch is asked for. Behind the block the thread has ended,
    however the block ended.

    Args:
        data: the split. order: the row indices of each batch.
        device: on CUDA the batches come through pinned memory, so that the copies do not hold the host up.
        multiple: sequences are padded up to one of it.
    """
    ready: Queue[Batch | BaseException | None] = Queue(_AHEAD)
    stopped = Event()
    thread = Thread(target=_make, args=(data, order, device, multiple, ready, stopped), name="batches", daemon=True)
    thread.start()
    try:
        yield _taken(ready, device)
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room in the queue
            _empty(ready)
            thread.join(0.01)


def _make(
    data: Examples,
    order: Iterable[Sequence[int]],
    device: torch.device,
    multiple: int,
    ready: "Queue[Batch | BaseException | None]",
    stopped: Event,
) -> None:
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # each thread has a current device, at first cuda:0
        for indices in order:
            if stopped.is_set():
                return
            batch = data.batch(indices, multiple)
            if device.type == "cuda":
                batch = {name: column.pin_memory() for name, column in batch.items()}
            ready.put(batch)
        ready.put(None)
    except BaseException as error:
        ready.put(error)


def _taken(ready: "Queue[Batch | BaseException | None]", device: torch.device) -> Iterator[Batch]:
    while (made := ready.get()) is not None:
        if isinstance(made, BaseException):
            raise made
        yield {name: column.to(device, non_blocking=True) for name, column in made.items()}


def _empty(ready: "Queue[Batch | BaseException | None]") -> None:
    try:
        while True:
            ready.get_nowait()
    except Empty:
        pass

"""Hidden states of a split's examples, computed once and kept in a file on disk that is mapped into memory."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from peftbench.interruption import check_interrupted
from peftbench.scratch import scratch_bytes
from peftbench.tasks.base import Batch, Examples
from peftbench.training.batches import batches_of


class WithStates(Examples):
    """A split whose batches bring, in one more column, what was kept for their examples: (batch, longest, d)."""

    def __init__(self, data: Examples, column: str, states: torch.Tensor, offsets: np.ndarray) -> None:
        """`states`: (positions, d); those of example i are offsets[i] to offsets[i + 1]."""
        self.data, self.column, self.states, self.offsets = data, column, states, offsets
        self.labels = data.labels
        lengths = np.diff(offsets)
        # all have as many: one position that is read, or those that the model makes of an image
        self.same = int(lengths[0]) if (lengths == lengths[0]).all() else None

    @property
    def sizes(self) -> np.ndarray:
        """What each example of the split costs, (examples,)."""
        return self.data.sizes

    def batch(self, indices: Sequence[int], multiple: int = 1) -> Batch:
        """Return these examples with their states, as many positions as the longest has, zero where padded."""
        batch = self.data.batch(indices, multiple)
        starts, ends = self.offsets[list(indices)], self.offsets[[i + 1 for i in indices]]
        longest = self.same or max(column.shape[1] for column in batch.values() if column.dim() > 1)
        states = torch.zeros(len(indices), longest, self.states.shape[1], dtype=self.states.dtype)
        for row, start, end in zip(states, starts.tolist(), ends.tolist(), strict=True):
            row[: end - start] = self.states[start:end]
        return {**batch, self.column: states}

    def subset(self, indices: Sequence[int]) -> Examples:
        """Return these examples of the split, which bring no states."""
        return self.data.subset(indices)

    def in_order(self, size: int) -> list[list[int]]:
        """As the split's."""
        return self.data.in_order(size)

    def shuffled(self, size: int, seed: int, epoch: int) -> list[list[int]]:
        """As the split's."""
        return self.data.shuffled(size, seed, epoch)


def with_states(
    data: Examples,
    column: str,
    compute: Callable[[Batch], torch.Tensor],
    batch_size: int,
    device: torch.device,
    multiple: int = 1,
) -> WithStates:
    """Compute the states of every example and return the split with them.

    Args:
        data: the split. column: what the batches call the states.
        compute: called with a batch without labels, gives (batch, positions, d): as many positions as the longest
            example has, or, where all are alike, any number.
        batch_size, device, multiple: of these batches, see `batches_of`.

    Raises UserError where the states do not fit on the disk of temporary files, KeyboardInterrupt between two batches
    where a signal has come.
    """
    order = data.in_order(batch_size)
    states, offsets = torch.empty(0), np.empty(0, np.int64)
    with batches_of(data, order, device, multiple) as batches:
        for indices, batch in zip(order, batches, strict=True):
            check_interrupted()
            batch.pop("labels", None)
            computed = compute(batch).cpu()
            if not len(offsets):
                alike = computed.shape[1] == 1 or (data.sizes == data.sizes[0]).all()
                sizes = np.full(len(data), computed.shape[1]) if alike else data.sizes
                offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
                states = _on_disk(int(offsets[-1]), computed.shape[2], computed.dtype)
            for index, row in zip(indices, computed, strict=True):
                start, end = offsets[index], offsets[index + 1]
                states[start:end] = row[: end - start]
    return WithStates(data, column, states, offsets)


def _on_disk(rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor, (rows, width), in a file on disk."""
    purpose = "trainer.cache_frozen=true: what the frozen layers give"
    kept = scratch_bytes(rows * width * dtype.itemsize, purpose, "leave it out")
    return torch.from_numpy(kept).view(dtype).view(rows, width)

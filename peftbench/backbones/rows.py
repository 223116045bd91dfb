"""Some rows of a batch, those of one task or of several: what acts on a site acts on these alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a batch: `groups` groups of `size` rows, from row `start` on.

    With more than one group, tensors that act on them are stacked, (groups, …), and each group meets its own.

    Attributes:
        total: rows of the whole batch.
    """

    total: int
    start: int
    size: int
    groups: int = 1

    @property
    def stop(self) -> int:
        """The row behind the last."""
        return self.start + self.groups * self.size

    @property
    def all(self) -> bool:
        """Whether these are all rows of the batch."""
        return self.stop - self.start == self.total

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """Return these rows of x, (total, …); RuntimeError where x is no tensor of the batch's rows."""
        if x.dim() < 2 or x.shape[0] != self.total:
            raise RuntimeError(f"a module is given {tuple(x.shape)}, not a row for each of the batch's {self.total}")
        return x if self.all else x[self.start : self.stop]

    def grouped(self, x: torch.Tensor) -> torch.Tensor:
        """Return these rows of x, (total, …, d): as they are, (size, …, d), or of several (groups, size · …, d)."""
        rows = self.of(x)
        return rows if self.groups == 1 else rows.reshape(self.groups, -1, x.shape[-1])

    def replace(
        self, x: torch.Tensor, function: Callable[..., torch.Tensor], *others: torch.Tensor, inplace: bool = False
    ) -> torch.Tensor:
        """Return x with `function(others …, x)` in the place of these rows, each argument `grouped`.

        Args:
            x: (total, …, d). others: (total, …), what else the function reads.
            inplace: x is nobody else's and may be written to.
        """
        new = function(*(self.grouped(other) for other in others), self.grouped(x))
        return self.put(x, new.reshape(self.stop - self.start, *x.shape[1:-1], new.shape[-1]), inplace)

    def put(self, x: torch.Tensor, new: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        """Return x with `new`, (rows, …), in the place of these rows."""
        if self.all:
            return new
        new = new.to(x.dtype)
        if not inplace:
            return torch.cat([x[: self.start], new, x[self.stop :]])
        x[self.start : self.stop] = new
        return x

    def spread(self, stacked: torch.Tensor) -> torch.Tensor:
        """Return what belongs to each row, (rows, …), of what belongs to each group: (groups, …), or (…) for one."""
        if self.groups == 1:
            return stacked.expand(self.size, *stacked.shape)
        return stacked.unsqueeze(1).expand(-1, self.size, *stacked.shape[1:]).flatten(0, 1)

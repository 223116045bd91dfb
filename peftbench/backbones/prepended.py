"""Sources of more keys and values for each layer's self-attention, and the mask that lets them be seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from peftbench.backbones.rows import Rows


@dataclass(frozen=True, eq=False)
class KeySource:
    """Keys and values for every layer.

    Attributes:
        keys: of a layer, by its number, (2, length, key_width), keys then values; (groups, 2, length, key_width) for
            several groups; a length of 0, and no graph behind it, for a layer that goes without.
    """

    keys: Callable[[int], torch.Tensor]


class Prepended:
    """All sources of one backbone, in the order they came."""

    def __init__(self) -> None:
        self.sources: list[KeySource] = []
        self.handles: list[Any] = []
        self.masks: list[tuple[torch.Tensor | None, int, torch.Tensor]] = []

    def add(self, source: KeySource, rows: Rows | None) -> None:
        """Attend to this source too; `rows` of the batch alone do, None: all."""
        self.sources.append(source)

    def remove(self, source: KeySource) -> None:
        """Attend to this source no longer."""
        self.sources.remove(source)

    def keys(self, layer: int) -> torch.Tensor:
        """Return (2, length, key_width), or (2, batch, length, key_width) where rows have keys of their own."""
        parts = [source.keys(layer) for source in self.sources]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def widened(self, mask: torch.Tensor | None, length: int, keys: torch.Tensor) -> torch.Tensor | None:
        """Return the mask for `keys`, (batch, heads, rows, head_dim), the first `length` of which are new.

        Layers share masks, so they are kept.
        """
        for known, known_length, widened in self.masks:
            if known is mask and known_length == length:
                return widened
        made = self.widen(mask, length, keys)
        if made is not None:
            self.masks.append((mask, length, made))
        return made

    def widen(self, mask: torch.Tensor | None, length: int, keys: torch.Tensor) -> torch.Tensor | None:
        """Return the mask with `length` allowed columns in front."""
        return None if mask is None else F.pad(mask, (length, 0), value=0.0 if mask.is_floating_point() else 1)

    def hide(self, mask: torch.Tensor, hidden: float) -> torch.Tensor:
        """Return a mask, (batch, 1, queries, keys), with `hidden` where a row has not as many of the new keys."""
        return mask


class PrependedToRows(Prepended):
    """Sources that each belong to some rows of the batch.

    A row with fewer keys than another has them next to its own, where relative positions find them, and sees nothing
    in front of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Rows] = []
        self.lengths: list[int] = []  # of each source in the layer that attends

    def add(self, source: KeySource, rows: Rows | None) -> None:
        """Let these rows attend to this source too."""
        assert rows is not None
        super().add(source, rows)
        self.rows.append(rows)

    def remove(self, source: KeySource) -> None:
        """Attend to this source no longer."""
        del self.rows[self.sources.index(source)]
        super().remove(source)

    def keys(self, layer: int) -> torch.Tensor:
        """Return (2, batch, length, key_width), the length that of the row with the most."""
        parts = [rows.spread(source.keys(layer)) for source, rows in zip(self.sources, self.rows, strict=True)]
        if (lengths := [part.shape[2] for part in parts]) != self.lengths:
            self.lengths = lengths
            self.masks.clear()
        if len(parts) == 1 and self.rows[0].all:
            return parts[0].transpose(0, 1)
        keys = parts[0].new_zeros(2, self.rows[0].total, max(lengths), parts[0].shape[-1])
        for part, rows in zip(parts, self.rows, strict=True):
            keys[:, rows.start : rows.stop, max(lengths) - part.shape[2] :] = part.transpose(0, 1)
        return keys

    def widen(self, mask: torch.Tensor | None, length: int, keys: torch.Tensor) -> torch.Tensor | None:
        """Return the mask with `length` columns in front, allowed where a row has keys there."""
        if mask is None and self.sees_all:
            return None
        if mask is None:
            mask = keys.new_zeros(keys.shape[0], 1, 1, keys.shape[2] - length)
        wide = F.pad(mask, (length, 0), value=0.0 if mask.is_floating_point() else 1)
        return self.hide(wide, torch.finfo(wide.dtype).min if wide.is_floating_point() else 0)

    def hide(self, mask: torch.Tensor, hidden: float) -> torch.Tensor:
        """Return the mask, which has the columns, with `hidden` where a row has no keys."""
        if self.sees_all:
            return mask
        unseen = torch.zeros(self.rows[0].total, mask.shape[-1], dtype=torch.bool)
        unseen[:, : max(self.lengths)] = True
        for length, rows in zip(self.lengths, self.rows, strict=True):
            unseen[rows.start : rows.stop, max(self.lengths) - length :] = False
        return mask.expand(len(unseen), -1, -1, -1).masked_fill(unseen.to(mask.device)[:, None, None], hidden)

    @property
    def sees_all(self) -> bool:
        """Whether every row has as many keys as any."""
        of_some = sum(rows.stop - rows.start for rows in self.rows)
        return len(set(self.lengths)) == 1 and of_some == self.rows[0].total

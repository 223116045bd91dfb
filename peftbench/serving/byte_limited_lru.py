"""A cache of tensors limited by their bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteLimitedLRU(Generic[T]):
    """A least-recently-used cache whose entries together take at most `limit` bytes.

    Attributes:
        limit: in bytes. size: bytes of all entries.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """Return the entry; where there is none, what `make` returns: the entry, and its size in bytes.

        That is stored unless it is larger than the limit by itself.
        """
        if key not in self._entries:
            entry, size = make()
            if size > self.limit:
                return entry
            self._entries[key] = entry, size
            self.size += size
        self._entries.move_to_end(key)
        while self.size > self.limit:
            _, (_, size) = self._entries.popitem(last=False)
            self.size -= size
        return self._entries[key][0]

    def __len__(self) -> int:
        return len(self._entries)

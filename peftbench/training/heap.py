"""Freed memory of the C library's heap, kept or given back: a page given back costs a fault when it is needed again."""

import ctypes
import sys
from functools import cache
from typing import Any

# parameters of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# glibc's own limit when it sets the threshold itself: larger tensors have mappings of their own
_LARGEST = 2**25


@cache
def keep_freed_memory() -> None:
    """From now on, keep the memory of freed tensors in the process for the next ones."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _NEVER)


def give_back_freed_memory() -> None:
    """Give the system back what is kept now."""
    if (malloc_trim := _function("malloc_trim")) is not None:
        malloc_trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None

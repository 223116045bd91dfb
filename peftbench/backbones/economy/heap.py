"""Keeping freed memory in the process: each page that goes back to the system costs a fault when it is needed again."""

import ctypes
from functools import cache

# parameters of mallopt(3), a function of glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# glibc's own limit when it sets the threshold itself: larger tensors have mappings of their own
_LARGEST = 2**25


@cache
def keep_freed_memory() -> None:
    """From now on, let the C library keep the memory of freed tensors for the next ones, where it is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _NEVER)

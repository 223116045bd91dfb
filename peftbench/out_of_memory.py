"""What it looks like when memory runs out."""

import errno

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that host or device memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):  # of mapping a file, of starting a process
        return error.errno == errno.ENOMEM
    # of the host's allocator; of CUDA for what is not a tensor: its context, pinned memory; of its libraries
    said = ("allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)

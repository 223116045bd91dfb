"""Room on a disk for what does not fit into memory, or would waste it: gone with the process, whatever ends that."""

import os
import tempfile

import numpy as np

from peftbench.errors import UserError


def scratch_bytes(size: int, purpose: str, remedy: str) -> np.ndarray:
    """Return so many bytes, (size,) uint8, of a temporary file that is mapped into memory.

    Raises UserError where there is no room: what `purpose` needs, of how much, and what to do besides setting TMPDIR.
    """
    try:
        with tempfile.TemporaryFile(prefix="peftbench-") as file:  # gone with the last that maps it
            if hasattr(os, "posix_fallocate"):  # not on macOS; a page that finds no room later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.uint8, "w+", shape=(size,))
    except OSError as error:
        raise UserError(
            f"{purpose} needs {size / 2**30:,.1f} GiB in {tempfile.gettempdir()} ({error.strerror}): set TMPDIR to a"
            f" folder with more room, or {remedy}"
        ) from error

"""What torchrun says of this process: how many it began, and which of them this is."""

import os


def launched_workers() -> int:
    """Return how many processes torchrun began; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def local_rank() -> int:
    """Return this process' number among those that torchrun began on this machine; 0 without it."""
    return int(os.environ["LOCAL_RANK"]) if launched_workers() > 1 else 0


def leads() -> bool:
    """Tell whether this is the process that writes and prints."""
    return launched_workers() == 1 or os.environ["RANK"] == "0"

"""Which device a run uses, and what an out-of-memory error looks like."""

import torch

from peftbench.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device called `name`: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises UserError for another name and for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is unknown: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            raise UserError(f"device={name}, but this machine shows no CUDA device: use device=auto or device=cpu")
        if device.index is not None and device.index >= count:
            raise UserError(f"device={name}, but there are only cuda:0 … cuda:{count - 1}")
    return device


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that host or device memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)

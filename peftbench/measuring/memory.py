"""Peak memory of the device and of this process, in bytes."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch


def reset_peak(device: torch.device) -> None:
    """Start the peaks of the device and, on Linux, of the host anew, so that a run of a multirun has its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # elsewhere the host's peak covers the whole life of the process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the peak memory so far, in bytes.

    Returns:
        device_peak: most that tensors took on the CUDA device since `reset_peak`; None on other devices.
        host_peak: largest resident set of this process since then; None where the system does not tell.
    """
    return {
        "device_peak": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "host_peak": _host_peak(),
    }


def _host_peak() -> int | None:
    if sys.platform != "linux":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    # ru_maxrss survives fork and exec there: it would tell the size of a large parent
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    # a sandbox that stands in for the kernel may leave the line out
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) * 1024 if peaks else None

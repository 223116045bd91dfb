"""What the processor can do, told without torch."""

from pathlib import Path


def has_bf16() -> bool:
    """Tell whether the processor multiplies in bf16 by itself (AVX512-BF16, AMX); False where Linux is not there."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_first("flags"))


def is_intel() -> bool:
    """Tell whether the processor is Intel's; False where Linux is not there."""
    return "GenuineIntel" in _first("vendor_id")


def _first(name: str) -> list[str]:
    """Return the words of the first line of that name in Linux's list of processors."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next((line.split() for line in lines if line.startswith(name)), [])
    except OSError:
        return []

"""What the processor can do, told without torch."""

from pathlib import Path


def has_bf16() -> bool:
    """Tell whether the processor multiplies in bf16 by itself (AVX512-BF16, AMX); False where Linux is not there."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            flags = next((line.split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)

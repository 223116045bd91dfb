"""How long it takes to change the task of a backbone that stays loaded."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from peftbench.backbones.heads import HeadedBackbone
from peftbench.measuring.latency import synchroniser
from peftbench.methods import Method

ROUNDS = 20


def measure_switching(
    adapter_dir: Path, backbone: HeadedBackbone, load_adapter: Callable[[Path, HeadedBackbone], Method]
) -> dict[str, Any]:
    """Read a trained adapter from disk and attach it, and attach one that is in memory, many times.

    Args:
        adapter_dir: a run's `adapter/`.
        backbone: with nothing attached; its head takes the adapter's.
        load_adapter: attaches what is saved in a folder to a backbone.

    Returns:
        ms: median, least and most milliseconds from the file to a model that answers for that task, the file
        in the system's cache. memory_ms: of taking the method off and putting it on, its tensors in memory already.
        bytes: size of what a task adds on disk.
    """
    synchronise = synchroniser(backbone.sites.device)
    from_disk, from_memory = [], []
    for _ in range(ROUNDS + 1):
        synchronise()
        start = time.perf_counter()
        method = load_adapter(adapter_dir, backbone)
        synchronise()
        from_disk.append(time.perf_counter() - start)
        start = time.perf_counter()
        method.detach()
        method.attach(backbone.sites)
        synchronise()
        from_memory.append(time.perf_counter() - start)
        method.detach()
    return {
        "ms": _summary(from_disk[1:]),
        "memory_ms": _summary(from_memory[1:]),
        "bytes": sum(path.stat().st_size for path in adapter_dir.iterdir()),
    }


def _summary(seconds: list[float]) -> dict[str, float]:
    milliseconds = 1000 * np.asarray(seconds)
    return {
        "median": float(np.median(milliseconds)),
        "least": float(milliseconds.min()),
        "most": float(milliseconds.max()),
        "n": len(seconds),
    }

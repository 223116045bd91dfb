"""What is measured of a trained run besides its scores: latency, training step, task switch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from peftbench.backbones.heads import HeadedBackbone
from peftbench.config.schema import RunConfig
from peftbench.measuring.latency import measure_latency
from peftbench.measuring.switching import measure_switching
from peftbench.measuring.training_step import measure_training_step
from peftbench.methods import Method
from peftbench.tasks.base import Batch, Examples


def measure_section(
    name: str,
    method: Method,
    backbone: HeadedBackbone,
    reads_first_token_only: bool,
    data: Examples,
    loss: Callable[[Any, Batch], torch.Tensor],
    adapter_dir: Path,
    load_adapter: Callable[[Path, HeadedBackbone], Method],
    config: RunConfig,
) -> dict[str, Any]:
    """Return the figures of one section of a run's result.

    Args:
        name: latency, training_step or switching.
        method: trained, attached or not; it is detached behind this.
        backbone: with weights. reads_first_token_only: whether its head reads the first token alone.
        data: the training split. loss: of outputs and batch.
        adapter_dir: where the run saved its adapter. load_adapter: attaches what is saved there.
        config: of the run.

    Raises whatever goes wrong: memory that runs out, for one.
    """
    asked = config.measure
    method.requires_grad_(False)
    if method.attached and name != "latency":  # which alone measures the trained method; the others attach new ones
        method.detach()
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "latency": lambda: measure_latency(
            method, backbone, asked, config.trainer.precision, data.timed_sizes(asked.lengths)
        ),
        "training_step": lambda: measure_training_step(
            method, backbone, reads_first_token_only, data, loss, config.trainer, asked.seconds
        ),
        "switching": lambda: measure_switching(adapter_dir, backbone, load_adapter),
    }
    try:
        return ways[name]()
    finally:
        if method.attached:
            method.detach()

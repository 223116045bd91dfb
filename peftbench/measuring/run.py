"""What is measured of a trained run besides its scores: latency, training step, task switch."""

from pathlib import Path
from typing import Any

from peftbench.backbones.load import Backbone
from peftbench.config import RunConfig
from peftbench.measuring.latency import measure_latency
from peftbench.measuring.switching import measure_switching
from peftbench.measuring.training_step import measure_training_step
from peftbench.methods import Method
from peftbench.tasks.batching import Encoded


def measure_run(
    method: Method, backbone: Backbone, first_row: bool, data: Encoded, adapter_dir: Path, config: RunConfig
) -> dict[str, Any]:
    """Return the sections of result.json that `config.measure` asks for; the others are None.

    Args:
        method: trained, attached or not; it is detached behind this.
        backbone: with weights. first_row: whether its head reads the first token alone.
        data: the training split. adapter_dir: where the run saved its adapter.
        config: of the run.
    """
    wanted = config.measure
    method.requires_grad_(False)
    sections: dict[str, Any] = {"latency": None, "training_step": None, "switching": None}
    if wanted.latency:
        sections["latency"] = measure_latency(method, backbone, wanted)
    if method.attached:
        method.detach()
    if wanted.training_step:
        sections["training_step"] = measure_training_step(
            method, backbone, first_row, data, config.trainer, wanted.seconds
        )
    if wanted.switching:
        sections["switching"] = measure_switching(adapter_dir, backbone)
    return sections

"""What is measured of a trained run besides its scores: latency, training step, task switch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from peftbench.backbones.heads import HeadedBackbone
from peftbench.config.schema import RunConfig
from peftbench.errors import PeftbenchError
from peftbench.measuring.latency import measure_latency
from peftbench.measuring.switching import measure_switching
from peftbench.measuring.training_step import measure_training_step
from peftbench.methods import Method
from peftbench.tasks.base import Batch, Examples
from peftbench.training.devices import is_out_of_memory


def measure_run(
    method: Method,
    backbone: HeadedBackbone,
    first_row: bool,
    data: Examples,
    loss: Callable[[Any, Batch], torch.Tensor],
    adapter_dir: Path,
    config: RunConfig,
) -> tuple[dict[str, Any], list[PeftbenchError]]:
    """Return the sections of result.json that `config.measure` asks for, the others None, and what went wrong.

    A section that ran out of memory is None: what was trained is not lost for it.

    Args:
        method: trained, attached or not; it is detached behind this.
        backbone: with weights. first_row: whether its head reads the first token alone.
        data: the training split. loss: of outputs and batch. adapter_dir: where the run saved its adapter.
        config: of the run.
    """
    wanted = config.measure
    method.requires_grad_(False)
    ways: dict[str, Callable[[], Any]] = {
        "latency": lambda: measure_latency(method, backbone, wanted, config.trainer.precision),
        "training_step": lambda: measure_training_step(
            method, backbone, first_row, data, loss, config.trainer, wanted.seconds
        ),
        "switching": lambda: measure_switching(adapter_dir, backbone),
    }
    sections: dict[str, Any] = dict.fromkeys(ways)
    failures = []
    for name, measure in ways.items():
        try:
            if getattr(wanted, name):
                sections[name] = measure()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failures.append(PeftbenchError(f"out of memory while measuring the {name.replace('_', ' ')}: left out"))
        finally:
            if method.attached:
                method.detach()
    return sections, failures

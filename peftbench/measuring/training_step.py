"""Time of a training step of a method over that of full fine-tuning, by units of steps taken in turns."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from peftbench.backbones.economy.attach import economical
from peftbench.backbones.heads import HeadedBackbone
from peftbench.config.schema import TrainerConfig
from peftbench.measuring.latency import ratio_with_interval
from peftbench.methods import Method, build
from peftbench.methods.full import FullConfig
from peftbench.tasks.base import Batch, Examples
from peftbench.training.loop import fit

STEPS = 4  # in a unit
LEAST_ROUNDS = 5


Loss = Callable[[Any, Batch], torch.Tensor]


def measure_training_step(
    method: Method,
    backbone: HeadedBackbone,
    reads_first_token_only: bool,
    data: Examples,
    loss: Loss,
    config: TrainerConfig,
    seconds: float,
) -> dict[str, Any]:
    """Train a few batches with the method and with full fine-tuning, in turns, on the same examples.

    Args:
        method: says which method with which settings; a new one is built, its own tensors stay as they are.
        backbone: with nothing attached; its head is given back as it was found.
        reads_first_token_only: whether the head reads the first token alone.
        data: the training split. loss: of outputs and batch.
        config: batch size, precision and optimizer.
        seconds: time for all rounds together, the warm-up apart; `LEAST_ROUNDS` rounds are the least.

    Returns:
        ms, full_ms: median milliseconds of a step. ratio, ratio_low, ratio_high: of the two, with its 95 %
        interval. rounds, steps: how many units of how many steps. batch_size.
    """
    rows = _representative(data, config.batch_size)
    part = data.subset(rows)
    unit_config = replace(config, epochs=1, patience=0, max_steps=None)
    head = {name: parameter.detach().clone() for name, parameter in (backbone.head | backbone.statistics).items()}
    pair = [build(method.config, backbone.sites), build(FullConfig(), backbone.sites)]
    times: list[list[float]] = [[], []]
    spent, rounds = 0.0, -1  # the first round warms up
    while rounds < LEAST_ROUNDS or spent < seconds:
        taken = [_unit(each, backbone, reads_first_token_only, part, loss, unit_config) for each in pair]
        if rounds >= 0:
            for series, unit in zip(times, taken, strict=True):
                series.append(unit)
            spent += sum(taken)
        rounds += 1
    with torch.no_grad():
        for name, tensor in (backbone.head | backbone.statistics).items():
            tensor.copy_(head[name])
            tensor.grad = None
    steps = -(-len(rows) // config.batch_size)
    ratio, low, high = ratio_with_interval(*times)
    return {
        "ms": 1000 * float(np.median(times[0])) / steps,
        "full_ms": 1000 * float(np.median(times[1])) / steps,
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "rounds": rounds,
        "steps": steps,
        "batch_size": config.batch_size,
    }


def _representative(data: Examples, batch_size: int) -> list[int]:
    """Return the rows of `STEPS` batches of an epoch, evenly spread over its batches by size."""
    sizes = data.sizes
    batches = sorted(data.shuffled(batch_size, seed=0, epoch=0), key=lambda rows: sizes[rows].max())
    chosen = {(2 * i + 1) * len(batches) // (2 * STEPS) for i in range(STEPS)}
    return [row for number in sorted(chosen) for row in batches[number]]


def _unit(
    method: Method, backbone: HeadedBackbone, first_token_only: bool, data: Examples, loss: Loss, config: TrainerConfig
) -> float:
    method.to(backbone.sites.device)
    trained = {f"method.{name}": parameter for name, parameter in method.named_parameters()}
    trained |= {f"head.{name}": parameter for name, parameter in backbone.head.items()}
    with economical(
        backbone.sites, method, first_token_only, config.precision, config.compile, checkpointing=config.checkpointing
    ):
        fitted = fit(
            model=backbone.model,
            trained=trained,
            data=data,
            loss=loss,
            evaluate=lambda: {"": 0.0},
            primary="",
            config=config,
            seed=0,
            device=backbone.sites.device,
            redraw=lambda random: method.redraw(random, backbone.sites),
            penalty=method.penalty,
        )
    return sum(fitted.seconds)

"""AdamW over what trains, and the learning-rate schedule."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def build_optimizer(
    parameters: Iterable[nn.Parameter], lr: float, betas: Sequence[float], weight_decay: float
) -> torch.optim.AdamW:
    """Return fused AdamW; tensors of one dimension (biases, norms) are not decayed."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), fused=True)


def build_schedule(optimizer: torch.optim.Optimizer, schedule: str, steps: int, warmup: float) -> LambdaLR:
    """Return the schedule over `steps` optimizer steps: a linear warm-up (a share of them), then `schedule`.

    linear falls to 0 at the last step, cosine likewise along half a wave, constant stays.
    """
    warm = min(math.ceil(steps * warmup), steps - 1)  # a step of warming up alone would learn nothing

    def factor(step: int) -> float:
        if step < warm:
            return step / warm
        done = (step - warm) / max(1, steps - warm)
        if schedule == "linear":
            return max(0.0, 1 - done)
        if schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return 1.0

    return LambdaLR(optimizer, factor)

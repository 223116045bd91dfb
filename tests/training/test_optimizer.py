"""Decay groups and schedules, the latter against transformers' own."""

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from peftbench.training.optimizer import build_optimizer, build_schedule

KINDS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25])
def test_schedule_is_the_one_transformers_has(kind, warmup):
    optimizers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    ours = build_schedule(optimizers[0], kind, 20, warmup)
    theirs = get_scheduler(KINDS[kind], optimizers[1], num_warmup_steps=int(20 * warmup), num_training_steps=20)
    for _ in range(20):
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr())
        for optimizer, schedule in zip(optimizers, (ours, theirs), strict=True):
            optimizer.step()
            schedule.step()


def test_only_matrices_are_decayed():
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([matrix, vector], lr=0.1, betas=[0.9, 0.999], weight_decay=0.5)
    for parameter in (matrix, vector):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(matrix, torch.full((2, 2), 0.95)) and torch.equal(vector, torch.ones(2))


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_a_single_step_learns(kind):
    optimizer = build_optimizer([torch.nn.Parameter(torch.ones(2))], 0.1, (0.9, 0.999), 0.0)
    build_schedule(optimizer, kind, 1, 0.06)
    assert optimizer.param_groups[0]["lr"] == 0.1

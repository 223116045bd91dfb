"""The training loop: a module, what trains of it, batches; one row of history every few steps and epochs."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from peftbench.config.schema import TrainerConfig
from peftbench.errors import NonFiniteError
from peftbench.interruption import check_interrupted
from peftbench.tasks.base import Batch, Examples
from peftbench.training.batches import batches_of
from peftbench.training.devices import autocasting, padding_multiple
from peftbench.training.heap import keep_freed_memory
from peftbench.training.optimizer import build_optimizer, build_schedule
from peftbench.training.parallel import ALONE, Workers
from peftbench.training.progress import EpochRow, Fitted, Progress

# steps between two looks at the loss: each look waits for the device
_LOOK_EVERY = 10
# tells the generator of `redraw` from that of the order of the batches
_OF_BATCHES = 1
_REMEDY = "lower trainer.lr, or set trainer.precision=fp32"


class Observer(Protocol):
    """What is told how training goes on: the terminal, the record, wandb."""

    def on_resume(self, step: int) -> None:
        """Take the number of steps that a checkpoint holds, where training goes on from one."""

    def on_steps(self, row: dict[str, Any]) -> None:
        """Take step, steps, epoch, loss (mean since the last row), lr and examples_per_second."""

    def on_epoch(self, row: EpochRow) -> None:
        """Take step, epoch, loss (mean over the epoch), seconds and the validation metrics."""


def fit(
    model: nn.Module,
    trained: Mapping[str, nn.Parameter],
    data: Examples,
    loss: Callable[[Any, Batch], torch.Tensor],
    evaluate: Callable[[], dict[str, float]],
    primary: str,
    config: TrainerConfig,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    observers: Sequence[Observer] = (),
    workers: Workers = ALONE,
    redraw: Callable[[np.random.Generator | None], None] = lambda random: None,
    penalty: Callable[[], torch.Tensor | None] = lambda: None,
    statistics: Mapping[str, torch.Tensor] = MappingProxyType({}),
    dropout_seed: int | None = None,
) -> Fitted:
    """Train `trained` and leave the last epoch's values in it; where nothing is to train, nothing is done.

    Args:
        model: called with a batch's columns, returns an object with `.logits`, (batch, outputs).
        trained: the parameters to train by name; all on `device`.
        data: the training split, with labels.
        loss: called with what the model returned and the batch, returns the batch's mean loss.
        evaluate: called after each epoch, returns the validation metrics.
        primary: the metric that patience watches; higher is better.
        config: epochs, batch size, optimizer and schedule.
        seed: decides the order of the batches.
        device: where the batches go.
        checkpoint: written after each epoch; where it exists, training goes on from it.
        observers: told of every few steps and of every epoch.
        workers: the processes that share each batch; checkpoint and observers are the first one's alone.
        redraw: called with a seeded generator before each micro-batch (same draw in all processes), e.g. to choose
            dropped layers; called with None at the end of each epoch to restore evaluation behaviour.
        statistics: what the model gathers while it trains, by name, which the checkpoint keeps as well.
        dropout_seed: of the processes beside the first; by default `seed`.
        penalty: called once a step, returns what is added to the loss, None for nothing; the loss told is without it.

    Raises NonFiniteError at a NaN or infinite loss or weight, KeyboardInterrupt between two steps where a signal has
    come, and what torch raises when memory runs out.
    """
    if not trained:
        return Fitted()
    batches_an_epoch = -(-len(data) // config.batch_size)
    steps_an_epoch = -(-batches_an_epoch // config.accumulate)
    steps = min(steps_an_epoch * config.epochs, config.max_steps or sys.maxsize)
    parameters = list(trained.values())
    if device.type == "cpu":
        keep_freed_memory()
    optimizer = build_optimizer(parameters, config.lr, config.betas, config.weight_decay)
    schedule = build_schedule(optimizer, config.schedule, steps, config.warmup)
    autocast = autocasting(config.precision, device)
    multiple = padding_multiple(config.precision, device)
    # sizes that vary are symbols from the start; those of images need not be, and fewer kernels can cope with symbols
    varies = len(np.unique(data.sizes)) > 1
    forward = torch.compile(model, dynamic=varies or None) if config.compile else model
    fitted = Fitted()
    progress = Progress({**trained, **statistics}, optimizer, schedule, fitted, device)
    if state := workers.from_first(lambda: progress.load(checkpoint)):
        progress.restore(state)
        for observer in observers:
            observer.on_resume(fitted.steps)

    for epoch in range(len(fitted.rows), config.epochs):
        if fitted.steps == steps or _out_of_patience(fitted, config.patience):
            break
        model.train()
        workers.seed(seed if dropout_seed is None else dropout_seed, epoch)
        losses = _Losses(steps, epoch, observers)
        started = time.perf_counter()
        order = data.shuffled(config.batch_size, seed, epoch)
        order = order[: (steps - fitted.steps) * config.accumulate]
        parts = [workers.part(indices) for indices in order]
        # made anew from seed and epoch, as the order of the batches is: a checkpoint needs nothing of it
        random = np.random.default_rng((seed, epoch, _OF_BATCHES))
        seen = data.augmented(seed, epoch)
        with batches_of(seen, list(filter(None, parts)), device, multiple) as batches:
            for first in range(0, len(order), config.accumulate):
                check_interrupted()
                step = slice(first, first + config.accumulate)
                examples = sum(map(len, order[step]))
                mean = torch.zeros((), device=device)
                for part in parts[step]:
                    redraw(random)  # also where the others have all of the batch, so that all draw alike
                    if part:
                        with autocast:
                            share = _mean_loss(forward, next(batches), loss) * (len(part) / examples)
                        share.backward()
                        mean += share.detach()
                mean = workers.sum_gradients(parameters, mean)
                if (added := penalty()) is not None:  # once a step: the same in every worker
                    added.backward()
                lr = _update(parameters, optimizer, schedule, config.clip)
                fitted.steps += 1
                if fitted.first_step is None:
                    fitted.first_step = time.time()
                losses.add(fitted.steps, mean, examples, lr)
        redraw(None)
        losses.flush()
        _check_finite(trained, fitted.steps)
        seconds = time.perf_counter() - started
        row: EpochRow = {
            "step": fitted.steps,
            "epoch": epoch + 1,
            "loss": losses.mean,
            "seconds": seconds,
            "validation": workers.from_first(evaluate),
        }
        fitted.rows.append(row)
        fitted.examples += losses.examples
        if not fitted.best or row["validation"][primary] > fitted.best["validation"][primary]:
            fitted.best = row
        for observer in observers:
            observer.on_epoch(row)
        # last: what stands behind the checkpoint is trained and told again
        if checkpoint is not None:
            progress.save(checkpoint)
    model.eval()
    return fitted


def _mean_loss(forward: Callable[..., Any], batch: Batch, loss: Callable[[Any, Batch], torch.Tensor]) -> torch.Tensor:
    outputs = forward(**{name: column for name, column in batch.items() if name != "labels"})
    return loss(outputs, batch)


def _update(
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    clip: float | None,
) -> float:
    """Take an optimizer step by the gradients there are, and return the learning rate it was taken with."""
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad()
    lr = float(schedule.get_last_lr()[0])
    schedule.step()
    return lr


class _Losses:
    """Collects losses without waiting for the device at each step, and tells the observers their means."""

    def __init__(self, steps: int, epoch: int, observers: Sequence[Observer]) -> None:
        self.steps, self.epoch, self.observers = steps, epoch, observers
        self.pending: list[tuple[int, torch.Tensor, int]] = []
        self.total, self.examples = 0.0, 0
        self.lr = 0.0
        self.since = time.perf_counter()

    def add(self, step: int, loss: torch.Tensor, examples: int, lr: float) -> None:
        self.pending.append((step, loss, examples))
        self.lr = lr
        if len(self.pending) == _LOOK_EVERY:
            self.flush()

    def flush(self) -> None:
        if not self.pending:
            return
        values = torch.stack([loss for _, loss, _ in self.pending]).tolist()
        sum_, examples = 0.0, 0
        for (step, _, count), value in zip(self.pending, values, strict=True):
            if not abs(value) < float("inf"):
                raise NonFiniteError(f"the loss became {value} at step {step}: {_REMEDY}")
            sum_ += value * count
            examples += count
        now = time.perf_counter()
        row = {
            "step": self.pending[-1][0],
            "steps": self.steps,
            "epoch": self.epoch + 1,
            "loss": sum_ / examples,
            "lr": self.lr,
            "examples_per_second": examples / (now - self.since),
        }
        self.since = now
        self.total += sum_
        self.examples += examples
        self.pending.clear()
        for observer in self.observers:
            observer.on_steps(row)

    @property
    def mean(self) -> float:
        return self.total / self.examples


def _check_finite(trained: Mapping[str, nn.Parameter], step: int) -> None:
    """Raise NonFiniteError for a NaN or infinite parameter: a loss tells only of the weights before its step."""
    sums = torch.stack([parameter.detach().sum(dtype=torch.float32) for parameter in trained.values()])
    for name, finite in zip(trained, sums.isfinite().tolist(), strict=True):
        if not finite:
            raise NonFiniteError(f"{name} became NaN or infinite by step {step}: {_REMEDY}")


def _out_of_patience(fitted: Fitted, patience: int) -> bool:
    return bool(patience and fitted.rows and len(fitted.rows) - fitted.best["epoch"] >= patience)

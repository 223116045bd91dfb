"""Units of training that `benchmark_peers.py` times in turns, each in a process of its own."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import peers
import torch

from peftbench.backbones.economy.attach import economical
from peftbench.cli import ENVIRONMENT
from peftbench.config.schema import RunConfig
from peftbench.measuring.memory import peak_memory, reset_peak
from peftbench.runs.prepare import Prepared, prepare
from peftbench.training.loop import fit

# trains for as many steps as it is told and returns the seconds they took
Unit = Callable[[int], float]


class Measured(NamedTuple):
    """What a unit took.

    Attributes:
        memory: in bytes, at most, beside what lay in memory before: model and data.
    """

    seconds: float
    memory: int


def in_process(make: Callable[..., Unit], config: RunConfig, *arguments: Any) -> Callable[[int], Measured]:
    """Make a unit in a process of its own, where neither side profits from what the other sets.

    Ours has the environment of the command, the peers' none of it.
    """
    context = torch.multiprocessing.get_context("spawn")
    asked, asking = context.Pipe(duplex=True)
    process = context.Process(target=serve_unit, args=(asking, make, config, *arguments), daemon=True)
    environment = ENVIRONMENT if make is our_unit else {}
    os.environ.update(environment)
    process.start()
    for name in environment:
        del os.environ[name]
    asking.close()  # so that the end of the process is the end of the pipe

    def unit(steps: int) -> Measured:
        asked.send(steps)
        return asked.recv()

    return unit


def serve_unit(asking: Connection, make: Callable[..., Unit], config: RunConfig, *arguments: Any) -> None:
    prepared = prepare(config)
    if make is not our_unit:  # what preparing sets on a GPU is ours alone
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.enable_cudnn_sdp(True)
    unit = make(config, prepared, *arguments)
    with suppress(EOFError):  # nobody asks any more
        while True:
            steps = asking.recv()
            reset_peak(prepared.device)
            before = _peak(prepared.device)
            asking.send(Measured(unit(steps), _peak(prepared.device) - before))


def _peak(device: torch.device) -> int:
    peaks = peak_memory(device)
    return peaks["device_peak"] or peaks["host_peak"] or 0


def our_unit(config: RunConfig, prepared: Prepared, chosen: list[int]) -> Unit:
    """Train as `peftbench train` does, on the chosen rows."""
    split, model, method = prepared.splits["train"], prepared.backbone.model, prepared.method
    model.to(prepared.device)
    method.to(prepared.device)

    def unit(steps: int) -> float:
        rows = chosen[: steps * config.trainer.batch_size]
        with economical(
            prepared.backbone.sites, prepared.method, prepared.reads_first_token_only, config.trainer.precision
        ):
            fitted = fit(
                model=model,
                trained=prepared.trained,
                data=split.subset(rows),
                loss=prepared.task.objective.loss,
                evaluate=lambda: {prepared.task.metrics[0]: 0.0},
                primary=prepared.task.metrics[0],
                config=replace(config.trainer, epochs=1),
                seed=config.seed,
                device=prepared.device,
            )
        return sum(fitted.seconds)

    return unit


def peer_unit(config: RunConfig, prepared: Prepared, chosen: list[int], padding: str) -> Unit:
    peer = peers.peer_of(config, prepared, padding)
    trainer = peers.peer_trainer(peer, peers.rows_of(prepared.task.splits["train"], chosen))
    clock = peers.Clock()
    trainer.add_callback(clock)
    if padding == "sorted":
        rows: Any = trainer.train_dataset
        order = peers.grouped_order(rows, config.trainer.batch_size, len(prepared.splits["train"]))
        trainer.train_dataset = rows.select(order)

    def unit(steps: int) -> float:
        trainer.args.max_steps = steps
        trainer.optimizer = None  # as ours, each unit begins anew
        trainer.train()
        return clock.seconds

    return unit

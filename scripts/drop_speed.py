"""Seconds of a training step with n layers bare, with and without `trainer.cache_frozen`, over those of n = 0.

    python scripts/drop_speed.py --model minilm --task mrpc --drop 0,1,3,5 --rounds 5

Variants take turns on the same examples, all without dropout. Each trains two epochs, of which the second counts: what
the cache costs once is shown apart. Robust is the mean over the n that its batches draw. How fast a trained run answers
with n layers dropped is `peftbench evaluate RUN --drop each --latency`.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from peftbench.cli import ENVIRONMENT
from peftbench.config.compose import compose
from peftbench.config.schema import RunConfig, resolve
from peftbench.measuring.latency import ratio_with_interval
from peftbench.runs.attached import attached_for_training
from peftbench.runs.pinned_config import pin_config
from peftbench.runs.prepare import prepare
from peftbench.terminal import run_script
from peftbench.training.loop import fit

EPOCHS = 2


def variants(drops: Sequence[int]) -> dict[str, list[str]]:
    """Return the overrides that make each variant, by name."""
    found = {}
    for n in drops:
        found[f"n = {n}"] = [f"method.layers={n}-" if n else "method.layers=all"]
        if n:
            found[f"n = {n}, cached"] = [f"method.layers={n}-", "trainer.cache_frozen=true"]
    return {**found, "robust": ["method.drop=robust"]}


def unit(config: RunConfig, steps: int) -> tuple[float, float]:
    """Train on `steps` batches; return the seconds before the first epoch and those of a step of the last one."""
    prepared = prepare(config, reuse=True)
    prepared.backbone.model.to(prepared.device)
    prepared.method.to(prepared.device)
    data = prepared.splits["train"]
    batches = data.shuffled(config.trainer.batch_size, seed=0, epoch=0)
    spread = [batches[i * len(batches) // steps] for i in range(steps)]
    part = data.subset([row for rows in spread for row in rows])
    prepared = replace(prepared, splits={"train": part, "validation": part.subset([0])})
    began = time.perf_counter()
    with attached_for_training(prepared, config.trainer) as splits:
        made = time.perf_counter() - began
        fitted = fit(
            model=prepared.backbone.model,
            trained=prepared.trained,
            data=splits["train"],
            loss=prepared.task.objective.loss,
            evaluate=lambda: {"": 0.0},
            primary="",
            config=config.trainer,
            seed=config.seed,
            device=prepared.device,
            redraw=prepared.redraw,
        )
    return made, fitted.seconds[-1] / steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--method", default="pfeiffer")
    parser.add_argument("--drop", default="0,1,3,5", help="n, the first of them the baseline")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("settings", nargs="*", help="of all runs: trainer.precision=fp32, threads=2 …")
    arguments = parser.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    base = [f"model={arguments.model}", f"task={arguments.task}", f"method={arguments.method}", "model.dropout=0.0"]
    base += [f"trainer.epochs={EPOCHS}", "trainer.warmup=0", *arguments.settings]
    configs = {
        name: pin_config(resolve(compose([*base, *overrides])))
        for name, overrides in variants([int(n) for n in arguments.drop.split(",")]).items()
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in configs}
    for turn in range(arguments.rounds + 1):  # the first warms up
        for name, config in configs.items():
            measured = unit(config, arguments.steps)
            if turn:
                times[name].append(measured)
    first = next(iter(times))
    print(f"| {arguments.method} on {arguments.task}, {arguments.model} | step, ms | × {first} | computed once, s |")
    print("| --- | ---: | ---: | ---: |")
    for name, found in times.items():
        ratio, low, high = ratio_with_interval([step for _, step in found], [step for _, step in times[first]])
        once = f"{median(made for made, _ in found):.1f}" if "cached" in name else ""
        milliseconds = 1000 * median(step for _, step in found)
        print(f"| {name} | {milliseconds:.0f} | {ratio:.2f} ({low:.2f} … {high:.2f}) | {once} |")


if __name__ == "__main__":
    run_script(main)

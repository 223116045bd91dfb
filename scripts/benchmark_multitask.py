"""Measures how many rows a second one backbone answers for several tasks: in one pass, and task by task.

    pip install -e '.[peers]'
    python scripts/benchmark_multitask.py --markdown multitask.md
    python scripts/benchmark_multitask.py --methods lora,adapter --tasks 1,4 --seconds 5 --no-peft

32 rows are shared out evenly among the tasks; of more tasks than rows as many as there are rows are drawn anew for
each round. Timed is the model alone, from token ids to logits, in eager mode and with `--precision`. Each task has
random tensors of its own, head included; all stay in memory.

mixed       one pass for all rows, each with its task's tensors and head
mixed again the same once more (A/A): what a difference must exceed to mean anything
loop        a pass for each task, with the method attached as for a run by itself
peft        Hugging Face peft's mixed batches (`adapter_names`), which it has for LoRA alone; without heads of the tasks

Every variant is timed once a round, in turns; a ratio is the median over the rounds with its 95 % interval.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from peftbench.assets.fetch import fetch
from peftbench.backbones.heads import add_head
from peftbench.backbones.load import load_backbone, quiet
from peftbench.config.compose import compose
from peftbench.config.schema import RunConfig, resolve
from peftbench.measuring.latency import compare, ratio_with_interval, synchroniser
from peftbench.methods import METHODS
from peftbench.runs.origin import environment
from peftbench.serving.mixing import mixer
from peftbench.serving.passes import mixed_logits
from peftbench.serving.task_tensors import TaskTensors
from peftbench.terminal import run_script
from peftbench.training.devices import autocasting, resolve_precision, use_device

warnings.filterwarnings("ignore", category=FutureWarning)
ROWS = 32
LEAST_ROUNDS = 5
GIB = 2**30


def main() -> None:
    args = parse()
    device = use_device(args.device)
    args.precision = resolve_precision(args.precision, device)
    if args.threads:
        torch.set_num_threads(args.threads)
    model = resolve(compose([f"model={args.model}"])).model
    backbone = load_backbone(fetch(model))
    backbone.encoder.to(device)
    facts = environment(device, args.precision)
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    header = (
        f"{args.model}, {ROWS} rows of {args.length} tokens, {args.precision}; {facts.device}, {facts.threads} CPU"
        f" threads; {versions}"
    )
    print(header, flush=True)
    table = ["| method | mode | tasks | mixed, rows/s | mixed / loop | mixed again / mixed | mixed / peft |"]
    table += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for name in args.methods:
        config = resolve(compose([f"model={args.model}", f"method={name}"]))
        for count in args.tasks:
            table.append(measured(args, backbone, config, count, device))
            print(table[-1], flush=True)
    if args.markdown:
        args.markdown.write_text("\n".join([header, "", *table, ""]), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="minilm", help="as in peftbench train model=…")
    parser.add_argument("--methods", default=",".join(sorted(METHODS)), help="separated by commas")
    parser.add_argument("--tasks", default="1,4,16,64", help="numbers of tasks, separated by commas")
    parser.add_argument("--length", type=int, default=32, help="tokens of each row")
    parser.add_argument("--seconds", type=float, default=20, help="for each line of the table")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--no-peft", action="store_true", help="leave peft out")
    parser.add_argument("--markdown", type=Path, help="file for the table")
    args = parser.parse_args()
    args.methods = args.methods.split(",")
    args.tasks = [int(count) for count in args.tasks.split(",")]
    if wrong := set(args.methods) - set(METHODS):
        parser.error(f"no method {', '.join(sorted(wrong))}: choose from {', '.join(sorted(METHODS))}")
    return args


def measured(args: argparse.Namespace, backbone: Any, config: RunConfig, count: int, device: torch.device) -> str:
    """Return a line of the table: one method with `count` tasks."""
    tensors, tasks = made_tasks(args, backbone, config, count, device)
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(1000, backbone.encoder.config.vocab_size, (ROWS, args.length))).to(device)
    shared = min(count, ROWS)
    of_rows: list[Any] = []

    def mixed() -> None:
        mixed_logits(tensors, {"input_ids": ids}, of_rows)

    def loop() -> None:
        size = ROWS // shared
        for start in range(0, ROWS, size):
            mixed_logits(tensors, {"input_ids": ids[start : start + size]}, of_rows[start : start + size])

    variants: dict[str, Callable[[], None]] = {"mixed": mixed, "loop": loop, "mixed again": mixed}
    if not args.no_peft and config.method_name == "lora":
        variants["peft"] = peft_variant(args, config, count, ids, of_rows, device)

    def draw(name: str) -> None:
        if name == next(iter(variants)) or not of_rows:
            chosen = sorted(random.choice(count, shared, replace=False))
            of_rows[:] = [tasks[task] for task in chosen for _ in range(ROWS // shared)]

    times = compare(variants, args.seconds, LEAST_ROUNDS, synchroniser(device), draw)
    ratios = [ratio_shown(times, "loop", "mixed"), ratio_shown(times, "mixed again", "mixed")]
    ratios.append(ratio_shown(times, "peft", "mixed") if "peft" in variants else "")
    mode, speed = tensors.prototype(tasks[0]).mode, ROWS / float(np.median(times["mixed"]))
    return f"| {config.method_name} | {mode} | {count} | {speed:.0f} | {' | '.join(ratios)} |"


def ratio_shown(times: dict[str, list[float]], slow: str, fast: str) -> str:
    ratio, low, high = ratio_with_interval(times[slow], times[fast])
    return f"{ratio:.2f} ({low:.2f} … {high:.2f})"


def made_tasks(
    args: argparse.Namespace, backbone: Any, config: RunConfig, count: int, device: torch.device
) -> tuple[TaskTensors, list[Any]]:
    """Return `count` tasks of two classes with random tensors, and what holds them."""
    headed = add_head(backbone, 2)
    headed.model.to(device).requires_grad_(False)
    stored = METHODS[config.method_name](config.method, headed.sites).exported()[0]
    settings = {"name": config.method_name, **asdict(stored)}
    description = SimpleNamespace(method=settings)

    def drawn(task: Any) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(task.number)
        shapes = {**tensors.prototype(task).shapes, **{f"head.{name}": p.shape for name, p in headed.head.items()}}
        return {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    tensors = TaskTensors(mixer(headed, args.precision), 16 * GIB, drawn)
    return tensors, [
        SimpleNamespace(
            name=f"t{number}",
            number=number,
            method_key=config.method_name,
            outputs=2,
            description=description,
            record=SimpleNamespace(adapter_dir=Path()),
        )
        for number in range(count)
    ]


def peft_variant(
    args: argparse.Namespace, config: RunConfig, count: int, ids: torch.Tensor, of_rows: list, device: torch.device
) -> Callable[[], None]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(fetch(config.model), num_labels=2).to(device).eval()
    method = config.method
    lora = LoraConfig(
        r=method.rank, lora_alpha=method.alpha, target_modules=list(method.targets), init_lora_weights=False
    )
    mixing: Any = get_peft_model(model, lora, adapter_name="t0")
    for number in range(1, count):
        mixing.add_adapter(f"t{number}", lora)
    mixing.to(device).eval()

    @torch.inference_mode()
    def run() -> None:
        with autocasting(args.precision, device):
            mixing(input_ids=ids, adapter_names=[task.name for task in of_rows]).logits.cpu()

    return run


if __name__ == "__main__":
    run_script(main)

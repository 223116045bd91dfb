"""Measures training on images against transformers' `Trainer` with Hugging Face `peft`, side by side in one run.

    pip install -e '.[peers,vision]'
    PEFTBENCH_DATA=data python scripts/benchmark_images.py --task cifar10 --threads 2

LoRA (rank 8, query and value) on the same random images, a process each, taken in turns, in fp32 and, on a device that
is faster in it, bf16: images/s over one pass, and the memory it takes beside model and data. The Trainer is given its
images in two ways: decoded and prepared by the processor whenever they are asked for, as in the library's examples, and
prepared before the clock starts, as ours are.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import peers
import torch
import transformers
from peft import LoraConfig, get_peft_model
from training_units import Measured, Unit, in_process, our_unit
from transformers import AutoModelForImageClassification, Trainer
from transformers.trainer_callback import PrinterCallback

from peftbench.assets.fetch import fetch
from peftbench.config.compose import compose
from peftbench.config.schema import RunConfig, resolve
from peftbench.runs.origin import environment
from peftbench.runs.prepare import Prepared, prepare
from peftbench.terminal import run_script
from peftbench.training.devices import choose_device, resolve_precision

LORA = ["method=lora", "method.rank=8", "method.alpha=16", "method.targets=[query,value]", "method.dropout=0"]
WARM_UP_STEPS = 2


class Images(torch.utils.data.Dataset):
    """Images of a task as the Trainer takes them: made by `make` when they are asked for."""

    def __init__(self, make: Callable[[int], torch.Tensor], labels: list[int]) -> None:
        self.make, self.labels = make, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"pixel_values": self.make(row), "labels": self.labels[row]}


def main() -> None:
    args = parse()
    precision = resolve_precision("auto", choose_device(args.device))
    words = [f"model={args.model}", f"task={args.task}", f"device={args.device}", "task.augment=[]", *LORA]
    words += [f"threads={args.threads}"] if args.threads else []
    config = resolve(compose([*words, f"trainer.precision={precision}"]))
    prepared = prepare(config)
    chosen = torch.randperm(len(prepared.splits["train"]), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = chosen[: args.steps * config.trainer.batch_size]
    units: dict[str, Callable[[int], Measured]] = {}
    precisions = sorted({"fp32", precision}, reverse=True)
    for kind in precisions:
        settings = replace(config, trainer=replace(config.trainer, precision=kind))
        units[f"peftbench, {kind}"] = in_process(our_unit, settings, chosen)
        for decoded in (False, True):
            name = f"Trainer + peft, {'prepared before' if decoded else 'decoded when asked for'}, {kind}"
            units[name] = in_process(peer_unit, settings, chosen, decoded)
    memory = {name: unit(WARM_UP_STEPS).memory for name, unit in units.items()}
    times: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(args.rounds):
        for name, unit in units.items():
            measured = unit(args.steps)
            times[name].append(measured.seconds)
            memory[name] = max(memory[name], measured.memory)
    rows = [
        [
            name,
            f"{len(chosen) / median(seconds):.1f}",
            f"{len(chosen) / max(seconds):.1f} to {len(chosen) / min(seconds):.1f}",
            *(
                f"{median(s / o for s, o in zip(seconds, times[f'peftbench, {kind}'], strict=True)):.2f}"
                for kind in precisions
            ),
            f"{memory[name] / 2**20:,.0f}",
        ]
        for name, seconds in times.items()
    ]
    facts = environment(prepared.device, precision)
    height, width = prepared.splits["train"].timed_sizes([])[0]
    note = (
        f"{args.model} on {args.task}, {height} by {width} pixels, batch {config.trainer.batch_size}, {args.steps}"
        f" steps, median of {args.rounds} interleaved rounds, memory at most; {facts.device}, {facts.threads}"
        " CPU threads."
    )
    header = ["", "images/s", "range", *(f"peftbench in {kind} is × as fast" for kind in precisions), "memory, MiB"]
    peers.show("Training LoRA (rank 8, query and value) on images", note, header, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="dinov2_small_focus", help="as in peftbench train model=…")
    parser.add_argument("--task", default="cifar10", help="as in peftbench train task=…")
    parser.add_argument("--steps", type=int, default=20, help="batches a training unit")
    parser.add_argument("--rounds", type=int, default=3, help="how often each training is timed")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of both sides; default: torch's own choice")
    return parser.parse_args()


def peer_unit(config: RunConfig, prepared: Prepared, chosen: list[int], decoded: bool) -> Unit:
    split, outputs = prepared.task.splits["train"], prepared.task.objective.num_outputs
    examples = prepared.splits["train"]
    make = partial(_prepared, examples) if decoded else partial(_decoded, split, examples.preprocessing)
    data = Images(lambda row: make(chosen[row]), [int(split.labels[row]) for row in chosen])
    peer = peers.peer_of(config, prepared, "sorted")
    transformers.set_seed(peer.seed)
    folder = str(fetch(config.model))
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=outputs, dtype=torch.float32)
    lora = {**(peer.lora or {}), "task_type": None, "modules_to_save": ["classifier"]}
    trainer = Trainer(
        model=get_peft_model(model, LoraConfig(**lora)), args=peers.arguments_of(peer), train_dataset=data
    )
    trainer.remove_callback(PrinterCallback)
    clock = peers.Clock()
    trainer.add_callback(clock)

    def unit(steps: int) -> float:
        trainer.args.max_steps = steps
        trainer.optimizer = None  # as ours, each unit begins anew
        trainer.train()
        return clock.seconds

    return unit


def _prepared(examples: Any, row: int) -> torch.Tensor:
    return examples.batch([row])["pixel_values"][0]


def _decoded(split: Any, preprocessing: Any, row: int) -> torch.Tensor:
    pixels = preprocessing.processor(split.open(row), return_tensors="pt", **preprocessing.resizing)["pixel_values"]
    return pixels[0]


if __name__ == "__main__":
    run_script(main)

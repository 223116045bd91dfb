"""Measures peftbench against transformers' `Trainer` with Hugging Face `peft`, side by side in one run.

    pip install -e '.[peers]'
    python scripts/benchmark_peers.py --markdown peers.md
    python scripts/benchmark_peers.py --task-dir data/glue/mrpc --only training,inference --threads 2

Sections, each with a table; about 10 minutes for the first two on 2 CPU cores, 15 for all:

training   LoRA in fp32 and, on a device that is faster in it, bf16: examples/s over one pass through the same
           random rows of the training split, a process each, taken in turns. Timed from the begin of the
           epoch to its end: set-up, tokenizing and evaluation are left out.
inference  Latency of the model alone over that of the bare backbone: batch 1, eager, the attention that the
           model loads with, every variant once a round on the same token ids.
startup    Seconds from the first line of the program to the end of the first training step, and the time of
           the help pages. The peer's tokenized rows come from its cache on disk from the second round on.
memory     Peak of a process that trains LoRA on the same rows.

The `adapters` library is left out: it needs transformers 4 and cannot share an environment with peftbench.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peers
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from training_units import Measured, in_process, our_unit, peer_unit

from peftbench.assets.fetch import fetch
from peftbench.config.compose import compose
from peftbench.config.schema import RunConfig, resolve
from peftbench.measuring.latency import compare, ratio_with_interval, synchroniser
from peftbench.methods import build
from peftbench.runs.origin import environment
from peftbench.runs.prepare import Prepared, prepare
from peftbench.terminal import run_script
from peftbench.training.devices import choose_device, resolve_precision

SECTIONS = ("training", "inference", "startup", "memory")
LORA = ["method=lora", "method.rank=8", "method.alpha=16", "method.targets=[query,value]", "method.dropout=0"]
WARM_UP_STEPS, LENGTH = 2, 64


def main() -> None:
    args = parse()
    base = [f"model={args.model}", f"task={args.task}", f"device={args.device}"]
    base += [f"task.dir={args.task_dir.resolve()}"] if args.task_dir else []
    base += [f"threads={args.threads}"] if args.threads else []
    precision = resolve_precision("auto", choose_device(args.device))
    base += [f"trainer.precision={precision}"]
    config = resolve(compose([*base, *LORA]))
    prepared = prepare(config)
    args.steps = args.steps or (100 if prepared.device.type == "cuda" else 20)
    args.steps = min(args.steps, len(prepared.splits["train"]) // config.trainer.batch_size)
    facts = environment(prepared.device, precision)
    versions = ", ".join(f"{name} {version}" for name, version in {**facts.versions, **peers.VERSIONS}.items())
    header = f"{args.model} on {args.task}; {facts.device}, {facts.threads} CPU threads; {versions}"
    print(header)
    sections = {"training": training, "inference": inference, "startup": startup, "memory": memory}
    tables = [sections[name](args, base, config, prepared) for name in args.only]
    if args.markdown:
        args.markdown.write_text("\n".join([header, "", *tables]), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="minilm", help="as in peftbench train model=…")
    parser.add_argument("--task", default="mrpc", help="as in peftbench train task=…")
    parser.add_argument("--task-dir", type=Path, help="folder of train.tsv and dev.tsv")
    parser.add_argument("--steps", type=int, help="batches a training unit (default 20, on a GPU 100)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each training and start-up is timed")
    parser.add_argument("--seconds", type=float, default=60, help="for the inference section")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads of both sides; default: torch's own choice")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if wrong := set(args.only) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(wrong))}: choose from {', '.join(SECTIONS)}")
    return args


def training(args: argparse.Namespace, base: list[str], config: RunConfig, prepared: Prepared) -> str:
    batch, whole = config.trainer.batch_size, len(prepared.splits["train"])
    chosen = chosen_rows(args, config, prepared)
    units: dict[str, Callable[[int], Measured]] = {}
    precisions = sorted({"fp32", config.trainer.precision}, reverse=True)
    for precision in precisions:
        settings = replace(config, trainer=replace(config.trainer, precision=precision))
        units[f"peftbench, {precision}"] = in_process(our_unit, settings, chosen)
        for padding, words in padding_words(config).items():
            if precision == "fp32" or padding == "sorted":
                units[f"Trainer + peft, {words}, {precision}"] = in_process(peer_unit, settings, chosen, padding)
    for unit in units.values():
        unit(WARM_UP_STEPS)
    times: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(args.rounds):
        for name, unit in units.items():
            times[name].append(unit(args.steps).seconds)
    rows = []
    for name, seconds in times.items():
        faster = [
            f"{median(s / o for s, o in zip(seconds, times[f'peftbench, {precision}'], strict=True)):.2f}"
            for precision in precisions
        ]
        rows.append([name, *spread([len(chosen) / s for s in seconds], 1), *faster])
    note = (
        f"Batch {batch}, {args.steps} steps ({len(chosen)} rows of {whole}, the same for all), median of"
        f" {args.rounds} interleaved rounds, with the model's own dropout."
    )
    header = ["", "examples/s", "range", *(f"peftbench in {precision} is × as fast" for precision in precisions)]
    return peers.show("Training LoRA (rank 8, query and value)", note, header, rows)


def padding_words(config: RunConfig) -> dict[str, str]:
    fixed = f"padded to {config.task.max_length}"
    return {"max_length": fixed, "longest": "dynamic padding", "sorted": "grouped by length"}


def chosen_rows(args: argparse.Namespace, config: RunConfig, prepared: Prepared) -> list[int]:
    order = np.random.default_rng(0).permutation(len(prepared.splits["train"]))
    return order[: args.steps * config.trainer.batch_size].tolist()


def inference(args: argparse.Namespace, base: list[str], config: RunConfig, prepared: Prepared) -> str:
    backbone, device = prepared.backbone, prepared.device
    folder, outputs = str(fetch(config.model)), prepared.task.objective.num_outputs
    backbone.model.to(device)
    ids = torch.randint(5, backbone.sites.base.config.vocab_size, (1, LENGTH), device=device)
    bare, bare_again, merged = "bare backbone", "bare backbone again (A/A)", ", merged"
    methods = {
        name: build(resolve(compose([*base, *overrides])).method, backbone.sites)
        .to(device)
        .eval()
        .requires_grad_(False)
        for name, overrides in {
            "peftbench LoRA": LORA,
            f"peftbench LoRA{merged}": LORA,
            "peftbench IA³": ["method=ia3"],
            f"peftbench IA³{merged}": ["method=ia3"],
            "peftbench adapter 64, one a layer": ["method=adapter", "method.position=ffn"],
            "peftbench adapter 64, two a layer": ["method=adapter"],
            "peftbench Pfeiffer adapter 48": ["method=pfeiffer"],
            "peftbench parallel adapter": ["method=parallel"],
            "peftbench Compacter": ["method=compacter"],
            "peftbench mix and match": ["method=mam"],
            "peftbench fusion of three": ["method=fusion", "+method.runs={a: a, b: b, c: c}"],
            "peftbench prefix 20": ["method=prefix"],
            "peftbench prompt 20": ["method=prompt"],
        }.items()
    }
    models = dict.fromkeys((bare, bare_again, *methods), backbone.model.eval())

    def peer() -> Any:  # on the same weights: those of another copy would push them out of the processor's caches
        model = peers.bare_model(folder, outputs).to(device).eval()
        weights = dict(backbone.sites.base.named_parameters())
        for weight_name, weight in model.base_model.named_parameters():
            weight.data = weights[weight_name].data
        return model

    models["bare backbone, built by transformers"] = peer()
    for name, settings in {
        "peft LoRA": LoraConfig(**peers.lora_settings(config.method, backbone.sites)),
        "peft IA³": IA3Config(task_type="SEQ_CLS"),
        "peft prefix 20": PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
        "peft prompt 20": PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=20),
    }.items():
        models[name] = get_peft_model(peer(), settings).to(device).eval()
    attached: list[Any] = []

    def switch(name: str) -> None:
        while attached:
            attached.pop().detach()
        if name in methods:
            methods[name].attach(backbone.sites)
            attached.append(methods[name])
        if name.endswith(merged):
            methods[name].merge()

    calls = {name: lambda model=model: model(input_ids=ids) for name, model in models.items()}
    with torch.inference_mode():
        times = compare(calls, args.seconds, 5, synchroniser(device), before=switch)
    switch(bare)
    rows = []
    for name, seconds in times.items():
        ratio, low, high = ratio_with_interval(seconds, times[bare])
        rows.append([name, f"{1000 * median(seconds):.2f}", f"{ratio:.3f}", f"{low:.3f} … {high:.3f}"])
    note = (
        f"Batch 1, {LENGTH} tokens, eager, {backbone.sites.base.config._attn_implementation} attention,"
        f" float32, no mask; {len(times[bare])} interleaved rounds; the median of the paired ratios to the"
        " bare backbone and its 95 % interval."
    )
    return peers.show("Inference", note, ["", "ms (median)", "× bare backbone", "95 % interval"], rows)


def startup(args: argparse.Namespace, base: list[str], config: RunConfig, prepared: Prepared) -> str:
    short = ["trainer.epochs=1", "measure.latency=false"]
    peer = peers.peer_of(config, prepared, "longest")
    pages = {"peftbench --help": ["--help"], "peftbench train --help": ["train", "--help"]}
    seconds: dict[str, list[float]] = {name: [] for name in ("peftbench train", "Trainer + peft", *pages)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peers.rows_of(prepared.task.splits["train"]).to_json(folder / "train.jsonl")
        for _ in range(args.rounds):
            ours = train_in_process([*base, *LORA, *short], folder)
            seconds["peftbench train"].append(ours["time"]["startup"])
            reported = peers.run_peer(peer, folder / "train.jsonl", 1, folder)
            seconds["Trainer + peft"].append(reported["startup"])
            for name, words in pages.items():
                started = time.perf_counter()
                peers.run(["-m", "peftbench", *words], folder)
                seconds[name].append(time.perf_counter() - started)
    rows = [[name, *spread(found, 2)] for name, found in seconds.items()]
    note = (
        f"Median of {args.rounds} alternating processes. Training: to the end of the first step, all"
        f" {len(prepared.splits['train'])} rows tokenized. Help pages: the whole process."
    )
    return peers.show("Start-up", note, ["", "seconds", "range"], rows)


def memory(args: argparse.Namespace, base: list[str], config: RunConfig, prepared: Prepared) -> str:
    texts = ",".join(f"text{i}" for i in range(len(config.task.text)))
    overrides = [part for part in base if not part.startswith("task")] + LORA + ["trainer.epochs=1"]
    overrides += ["measure.latency=false", "task=text_file", f"task.text=[{texts}]"]
    overrides.append(f"task.metrics=[{','.join(config.task.metrics)}]")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, rows in (("train", chosen_rows(args, config, prepared)), ("validation", range(64))):
            peers.rows_of(prepared.task.splits[name], rows).to_json(folder / f"{name}.jsonl")
            overrides.append(f"task.splits.{name}={folder / name}.jsonl")
        peaks = {"peftbench train": train_in_process(overrides, folder)["memory"]}
        for padding in ("longest", "max_length"):
            peer = peers.peer_of(config, prepared, padding)
            peak = peers.run_peer(peer, folder / "train.jsonl", args.steps, folder)
            peaks[f"Trainer + peft, {padding_words(config)[padding]}"] = peak
    table = [[name, mib(peak["host_peak"]), mib(peak["device_peak"])] for name, peak in peaks.items()]
    note = f"A process each, {args.steps} steps of batch {config.trainer.batch_size} over the same rows."
    return peers.show("Peak memory", note, ["", "resident, MiB", "on the GPU, MiB"], table)


def train_in_process(overrides: list[str], folder: Path) -> dict[str, Any]:
    output = Path(tempfile.mkdtemp(dir=folder))
    peers.run(["-m", "peftbench", "train", *overrides, f"output_dir={output}"], folder)
    (result,) = output.rglob("result.json")
    return json.loads(result.read_text(encoding="utf-8"))


def spread(values: list[float], digits: int) -> list[str]:
    """Write the median, and the smallest and largest value."""
    return [f"{median(values):.{digits}f}", f"{min(values):.{digits}f} … {max(values):.{digits}f}"]


def mib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**20:,.0f}"


if __name__ == "__main__":
    run_script(main)

"""Compares what peftbench trains with what transformers' `Trainer` and Hugging Face `peft` train.

    pip install -e '.[peers]'
    python scripts/compare_quality.py --markdown quality.md
    python scripts/compare_quality.py --task-dir data/glue/mrpc --only peer --methods full --seeds 0

LoRA (rank 8, alpha 16, query and value) and full fine-tuning, on the same rows from the same model, with the
same epochs, batch size, learning rate, schedule, warm-up, dropout, weight decay and clipping: peftbench's
defaults for the method. Scores are those on validation after the last epoch, computed by peftbench for both.
The Trainer pads its random batches dynamically, peftbench forms its batches by length. On a CPU both run
on peftbench's kernels (backbones/economy/cpu.py): this is about scores, benchmark_peers.py is about speed.

Nothing is done twice: peftbench's runs are records of `peftbench train` and the peer's are small JSON files,
all under outputs/compare_quality. Several calls may share the work (--only, --methods, --seeds); each ends
with the table of what is there for its methods and seeds.

The `adapters` library is left out: it needs transformers 4 and cannot share an environment with peftbench.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import peers

from peftbench.backbones.economy.cpu import CheapOnCpu
from peftbench.config.compose import compose
from peftbench.config.schema import RunConfig, resolve
from peftbench.files import make_folder, write_json
from peftbench.runs.find import inspect_run
from peftbench.runs.identity import run_id
from peftbench.runs.origin import environment
from peftbench.runs.pinned_config import pin_config
from peftbench.runs.prepare import prepare
from peftbench.runs.record import Record
from peftbench.runs.result import Status
from peftbench.terminal import run_script

EXPERIMENT = "compare_quality"
METHODS = {
    "lora": ["method.rank=8", "method.alpha=16", "method.targets=[query,value]", "method.dropout=0"],
    "full": [],
}
SIDES = {"ours": "peftbench", "peer": "Trainer + peft"}


@dataclass(frozen=True)
class Pair:
    """A method and seed, trained by both sides: with what, and where the results lie."""

    method: str
    overrides: list[str]
    config: RunConfig
    record: Record
    peer_path: Path

    def result(self, side: str) -> dict[str, Any] | None:
        """Return what a side's finished run holds, None where there is none yet."""
        if side == "ours":
            run = inspect_run(self.record) if self.record.result_path.exists() else None
            if not (run and run.result and run.status == Status.FINISHED):
                return None
            return {"metrics": run.result.metrics, "examples": run.result.examples}
        return json.loads(self.peer_path.read_text(encoding="utf-8")) if self.peer_path.exists() else None


def main() -> None:
    args = parse()
    pairs = [plan(args, method, seed) for method in args.methods for seed in args.seeds]
    for pair in pairs:
        for side in args.only:
            if pair.result(side) is None:
                print(f"{SIDES[side]}: {pair.method}, seed {pair.config.seed}", flush=True)
                train_ours(pair) if side == "ours" else train_peer(pair)
    text = table(pairs)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="minilm", help="as in peftbench train model=…")
    parser.add_argument("--task", default="mrpc", help="as in peftbench train task=…")
    parser.add_argument("--task-dir", type=Path, help="folder of train.tsv and dev.tsv")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=list(SIDES), choices=SIDES, help="train this side alone")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"))
    parser.add_argument("--markdown", type=Path, help="file for the table")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. -- trainer.epochs=5")
    return parser.parse_args()


def plan(args: argparse.Namespace, method: str, seed: int) -> Pair:
    overrides = [
        f"method={method}",
        *METHODS[method],
        f"model={args.model}",
        f"task={args.task}",
        f"seed={seed}",
    ]
    overrides += [f"task.dir={args.task_dir.resolve()}"] if args.task_dir else []
    overrides += [f"threads={args.threads}"] if args.threads else []
    overrides += [f"device={args.device}", f"experiment={EXPERIMENT}", f"output_dir={args.output_dir}"]
    overrides += ["measure.latency=false", *args.overrides]
    config = pin_config(resolve(compose(overrides)))
    folder, name = args.output_dir / EXPERIMENT, run_id(config.plain())
    return Pair(method, overrides, config, Record(folder / name), folder / f"peer-{name}.json")


def train_ours(pair: Pair) -> None:
    subprocess.run([sys.executable, "-m", "peftbench", "train", *pair.overrides], check=True)


def train_peer(pair: Pair) -> None:
    prepared = prepare(pair.config)
    peer = peers.peer_of(pair.config, prepared, "longest")
    trainer = peers.peer_trainer(peer, peers.rows_of(prepared.task.splits["train"]))
    started = time.perf_counter()
    with CheapOnCpu() if peer.cpu else nullcontext():
        trainer.train()
    seconds = time.perf_counter() - started
    validation = peers.rows_of(prepared.task.splits["validation"])
    facts = asdict(environment(prepared.device, pair.config.trainer.precision))
    result = {
        "metrics": {"validation": peers.peer_scores(trainer, peer, validation, pair.config.task.metrics)},
        "examples": {"validation": len(validation)},
        "time": {"train": seconds},
        "peer": asdict(peer),
        **facts,
        "versions": {**facts["versions"], **peers.VERSIONS},
    }
    make_folder(pair.peer_path.parent)
    write_json(pair.peer_path, result)


def table(pairs: list[Pair]) -> str:
    rows, examples = [], set()
    for method in dict.fromkeys(pair.method for pair in pairs):
        same = [pair for pair in pairs if pair.method == method]
        trainer, metrics = same[0].config.trainer, same[0].config.task.metrics
        for side in SIDES:
            name = SIDES[side] if method == "lora" else SIDES[side].removesuffix(" + peft")
            results = [result for pair in same if (result := pair.result(side))]
            examples |= {result["examples"]["validation"] for result in results}
            scores = [result["metrics"]["validation"] for result in results]
            cells = [spread([score[metric] for score in scores], metric) for metric in metrics]
            rows.append([f"{method}, {name}", f"{trainer.lr:g}", str(trainer.epochs), *cells, str(len(results))])
    config = pairs[0].config
    note = (
        f"{config.model.name} on {config.task.name}, batch {config.trainer.batch_size}; validation"
        f" ({' or '.join(map(str, sorted(examples))) or 'no'} examples) after the last epoch; mean ± standard"
        " deviation over the seeds."
    )
    header = ["", "learning rate", "epochs", *config.task.metrics, "seeds"]
    return peers.show("Quality against the peer", note, header, rows)


def spread(values: list[float], metric: str) -> str:
    if not values:
        return "–"
    scale, unit = (100, " %") if metric in ("accuracy", "f1") else (1, "")
    digits = 1 if scale == 100 else 3
    deviation = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{deviation}{unit}"


if __name__ == "__main__":
    run_script(main)

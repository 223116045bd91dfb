"""The search behind each method's default learning rate: `recipe` in conf/method/*.yaml.

    python scripts/search_recipes.py --mrpc-dir data/glue/mrpc
    python scripts/search_recipes.py --methods lora prefix -- model=mpnet_base

Trains every learning rate of the grid once (seed 0, minilm) through `peftbench train -m` and shows the scores on
validation, each method's best first. A second call trains only what is missing.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from peftbench.commands.progress import format_metric
from peftbench.records.find import find_runs
from peftbench.records.record import Status

EXPERIMENT = "search_recipes"
# method → task, learning rates, epochs
GRID = {
    "head": ("mrpc", ["5e-3", "2e-2"], 3),
    "full": ("mrpc", ["5e-5", "1e-4"], 3),
    "lora": ("mrpc", ["1e-3", "3e-3"], 3),
    "prefix": ("mrpc", ["1e-2", "3e-2"], 2),
    "prompt": ("mrpc", ["1e-2", "5e-2"], 2),
    "bitfit": ("stsb_binary", ["3e-3", "1e-2"], 3),
    "adapter": ("stsb_binary", ["1e-3", "2e-3"], 5),
}


def main() -> None:
    args = parse()
    for method in args.methods:
        task, rates, epochs = GRID[method]
        overrides = [f"method={method}", f"task={task}", f"trainer.lr={','.join(rates)}", f"trainer.epochs={epochs}"]
        overrides += [f"task.dir={args.mrpc_dir.resolve()}"] if args.mrpc_dir and task == "mrpc" else []
        overrides += [f"experiment={EXPERIMENT}", f"output_dir={args.output_dir}", "measure.latency=false"]
        subprocess.run([sys.executable, "-m", "peftbench", "train", "-m", *overrides, *args.overrides], check=True)
    show(args.output_dir, args.methods)


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--methods", nargs="+", default=list(GRID), choices=GRID)
    parser.add_argument("--mrpc-dir", type=Path, help="folder of MRPC's train.tsv and dev.tsv")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="behind --, for peftbench train")
    return parser.parse_args()


def show(output_dir: Path, methods: list[str]) -> None:
    table = Table("method", "task", "learning rate", "epochs", "accuracy", "F1", "best epoch")
    for method in methods:
        runs = find_runs(output_dir, status=Status.FINISHED, experiment=EXPERIMENT, method=method)
        for run in sorted(runs, key=lambda run: -run.result["metrics"]["validation"]["accuracy"]):
            trainer = run.record.config()["trainer"]
            scores = [format_metric(name, run.result["metrics"]["validation"][name]) for name in ("accuracy", "f1")]
            best = f"{run.result['best']['epoch']}"
            table.add_row(method, run.result["task"], f"{trainer['lr']:g}", str(trainer["epochs"]), *scores, best)
    Console().print(table)


if __name__ == "__main__":
    main()

"""The search behind each method's default learning rate and epochs: `recipe` in conf/method/*.yaml.

    PEFTBENCH_DATA=data python scripts/search_recipes.py
    python scripts/search_recipes.py lora prefix --also model=mpnet_base

For each method a grid on validation, `peftbench sweep search=grid …`, whose winner is trained again on fresh seeds.
Runs that are there already are not trained again, so an interrupted call goes on.
"""

import argparse

from peftbench.cli import main as peftbench
from peftbench.terminal import run_script

GRID = {
    "head": "task=mrpc trainer.epochs=3 trainer.lr=5e-3,2e-2",
    "full": "task=mrpc trainer.epochs=3 trainer.lr=5e-5,1e-4",
    "lora": "task=mrpc trainer.epochs=3 trainer.lr=1e-3,3e-3",
    "prefix": "task=mrpc trainer.epochs=2 trainer.lr=1e-2,3e-2",
    "prompt": "task=mrpc trainer.epochs=4,8 trainer.lr=5e-2,2e-1",
    "bitfit": "task=stsb_binary trainer.epochs=3 trainer.lr=3e-3,1e-2",
    "pfeiffer": "task=mrpc trainer.epochs=5 trainer.lr=1e-3,3e-3",
    "parallel": "task=mrpc trainer.epochs=5 trainer.lr=1e-3,3e-3",
    "ia3": "task=mrpc trainer.epochs=5 trainer.lr=8e-3,2e-2",
    "compacter": "task=mrpc trainer.epochs=5 trainer.lr=3e-3,1e-2",
    "mam": "task=mrpc trainer.epochs=5 trainer.lr=3e-4,1e-3",
    "adapter": "task=mrpc trainer.epochs=5 trainer.lr=5e-4,1e-3",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(GRID)}; default: all")
    parser.add_argument("--also", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all searches")
    arguments = parser.parse_args()
    if unknown := set(arguments.methods) - set(GRID):
        parser.error(f"no grid for {', '.join(sorted(unknown))}: choose from {', '.join(GRID)}")
    codes = []
    for method in arguments.methods or GRID:
        line = ["search=grid", f"method={method}", *GRID[method].split(), "experiment=search_recipes"]
        codes.append(peftbench(["sweep", *line, *arguments.also]))
        if codes[-1] not in (0, 1):
            break
    return max(codes)


if __name__ == "__main__":
    run_script(main)

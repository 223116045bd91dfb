"""How well half of the human raters agree with the other half: `ceiling` in conf/task/{movies,nyt,tweets,amazon}*.yaml.

    python scripts/human_ceiling.py

Each text's raters are divided by chance, a hundred times; one half's mean is scored against the other's as a model is,
over the texts that the task has in all of its splits. A mean of 0 has no polarity: such pairs are left out of that.
"""

import ast

import numpy as np

from peftbench.assets.index import fetch_packages
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.config.task import TextTaskConfig
from peftbench.tasks.metrics import score
from peftbench.tasks.splits import SPLITS
from peftbench.tasks.text.files import read_text
from peftbench.tasks.text.packages import package_reader
from peftbench.terminal import run_script

TASKS = [f"{domain}{kind}" for domain in ("movies", "nyt", "tweets", "amazon") for kind in ("", "_binary")]
DIVISIONS = 100


def main() -> int:
    for name in TASKS:
        task = resolve(compose([f"task={name}"])).task
        ratings = _ratings(task)
        found = [_agreement(task, ratings, np.random.default_rng(seed)) for seed in range(DIVISIONS)]
        means = {metric: np.mean([agreement[metric] for agreement in found]) for metric in task.metrics}
        print(f"{name}: ceiling: {{{', '.join(f'{metric}: {mean:.3f}' for metric, mean in means.items())}}}")
    return 0


def _ratings(task: TextTaskConfig) -> list[np.ndarray]:
    """Return the ratings of each text of the task."""
    read, (name,) = package_reader(task)
    folder = fetch_packages(task, "none")
    lines = read_text(folder / name.replace("GroundTruth", "anonDataRatings")).splitlines()
    # a line of ratings for each line of texts
    return [
        np.array(ast.literal_eval(lines[number - 1].split("\t")[3]))
        for split in SPLITS
        for number, _ in read(folder, split).items
    ]


def _agreement(task: TextTaskConfig, ratings: list[np.ndarray], random: np.random.Generator) -> dict[str, float]:
    halves = []
    for of_text in ratings:
        shuffled = random.permutation(of_text)
        middle = len(shuffled) // 2
        halves.append((shuffled[:middle].mean(), shuffled[middle:].mean()))
    first, second = np.array(halves).T
    if task.threshold is None:
        return score(task.metrics, first, second)
    decided = (first != 0) & (second != 0)
    return score(task.metrics, (first[decided] > 0).astype(int), (second[decided] > 0).astype(int))


if __name__ == "__main__":
    run_script(main)

"""How often means over classes err where few examples are of one, by simulation; writes a table to docs/statistics.md.

    python scripts/calibrate_rare_classes.py

Two rows have the same law, and their seeds hardly differ.
"""

import argparse

import numpy as np
from calibrate_statistics import DRAWS, Calibration, cells, summary
from statistics_page import write_section

from peftbench.tables.bootstrap import score_draws
from peftbench.tables.dense_draws import pixel_draws
from peftbench.tables.statistics import centred, difference_interval
from peftbench.tables.unseen_examples import score_step, with_unseen_examples

BEGIN = "<!-- begin: written by scripts/calibrate_rare_classes.py -->"
END = "<!-- end of calibrate_rare_classes.py -->"
SEEDS = 3
# how many examples the rarest class has: of 40 pictures for mIoU, of 200 examples for the area
RARE = {"miou": (1, 2, 3, 5, 40), "roc_auc": (1, 2, 3, 5, 100)}


def calibrate_rare(metric: str, rare: int, repetitions: int) -> Calibration:
    """Compare two rows of equal truth many times, by a mean over classes whose rarest has `rare` examples."""
    generator = np.random.default_rng(rare)
    found = []
    for _ in range(repetitions):
        labels, draws = (_mask_draws if metric == "miou" else _area_draws)(generator, rare)
        worth = score_step(metric, labels)
        rows = [with_unseen_examples(centred(row), worth, str(place)) for place, row in enumerate(draws)]
        found.append(difference_interval(*rows))
    return summary(found)


def _mask_draws(generator: np.random.Generator, rare: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the pixels of 5 classes in 40 pictures, and the draws of two rows' mIoU; the last class is the rare one.

    A row finds 70 % of a class's pixels in a picture, give or take 30, and takes the others for another class.
    """
    pixels = np.full((40, 5), 500)
    pixels[:, 4] = np.where(generator.permutation(40) < rare, 200, 0)
    draws = []
    for _ in range(2):
        of_row = np.clip(0.7 + 0.3 * generator.standard_normal(pixels.shape), 0.02, 0.99)
        shares = np.clip(of_row + 0.02 * generator.standard_normal((SEEDS, *pixels.shape)), 0, 1)
        confusions = np.zeros((*shares.shape, 5))
        for kind, other in enumerate((1, 0, 0, 0, 0)):
            confusions[..., kind, kind] += shares[..., kind] * pixels[:, kind]
            confusions[..., kind, other] += (1 - shares[..., kind]) * pixels[:, kind]
        draws.append(pixel_draws(confusions, DRAWS)["miou"])
    return pixels, draws


def _area_draws(generator: np.random.Generator, rare: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the classes of 200 examples, `rare` of them positive, and the draws of two rows' areas."""
    labels = (np.arange(200) < rare).astype(int)
    draws = []
    for _ in range(2):
        of_row = 1.5 * labels + generator.standard_normal(200)
        positive = 1 / (1 + np.exp(-of_row - 0.05 * generator.standard_normal((SEEDS, 200))))
        draws.append(score_draws("roc_auc", labels, np.stack([1 - positive, positive], axis=-1), draws=DRAWS))
    return labels, draws


def _table(repetitions: int) -> list[str]:
    lines = [
        f"For scores that are means over classes, by how many examples the rarest has, with {SEEDS} seeds:",
        "mIoU of 5 classes in 40 pictures, and the area under the ROC curve on 200 examples, from"
        f" {repetitions:,} repetitions.",
        "",
        "| metric | 1 example | 2 | 3 | 5 | as many as others have |",
        "| --- |" + " ---: |" * 5,
    ]
    for metric, numbers in RARE.items():
        lines.append(f"| {metric} | {cells([calibrate_rare(metric, rare, repetitions) for rare in numbers])} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=500, help="simulated comparisons a figure (default 500)")
    write_section(BEGIN, END, _table(parser.parse_args().repetitions))


if __name__ == "__main__":
    main()

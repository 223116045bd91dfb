"""One example more: what the examples that there are cannot show where rows hardly differ on any of them.

The bootstrap draws the examples again, so two rows that answered all alike do so in every draw, however few there are,
and five answers on one side stay on it. What others would bring is added to a row's draws, the same for all its seeds:
so many examples more on which it is better, and worse, as a count of 0 leaves open (of Poisson counts by Jeffreys's
prior, gamma distributed with shape ½). The difference of two rows then has Laplace's distribution beside the
bootstrap's, and where no example tells the rows apart its interval ends where the exact one of a count of 0 does, at
3.7 examples (ln 40). Six examples on one side of six tell rows apart and five do not, as in the exact sign test.

It is little where it is not needed. Of m examples on which rows differ it makes their interval wider by 1.5 / m of its
width, and where runs of a row differ among themselves by less still: what is added has its variance divided by 1 + v,
v being the variance over examples that a run has by itself, in examples. For such runs' scores over seeds vary too.
"""

from zlib import crc32

import numpy as np

from peftbench.tables.statistics import unshared_variance

# in examples: Laplace's quantile of 97.5 %, ln 20, becomes the exact upper limit of a count of 0, ln 40
_SCALE = np.log(40) / np.log(20)


def with_one_more(draws: np.ndarray, worth: float, row: str) -> np.ndarray:
    """Return the draws of a row, (1 + draws, seeds), with what examples more may change.

    Args:
        worth: by how much one example changes the score.
        row: its label: rows of one table vary independently, and each alike in every comparison.
    """
    generator = np.random.default_rng(crc32(row.encode(errors="backslashreplace")))
    count, seeds = len(draws) - 1, draws.shape[1]
    apart = max(0.0, seeds * unshared_variance(draws)) / worth**2 if seeds > 1 else 0.0
    scale = _SCALE * worth / np.sqrt(1 + apart)
    better, worse = generator.gamma(0.5, scale, (2, (count + 1) // 2))
    more = better - worse
    return draws + np.concatenate([[0.0], more, -more])[: count + 1, None]


def worth_of_one(metric: str, labels: np.ndarray, classes: int | None = None) -> float:
    """Return by how much one more wrong answer lowers a high score, in the metric's own unit.

    Args:
        metric: as in `columns.SCORES`. labels: (examples, …). classes: of the task, where they are known.
    """
    examples = len(labels)
    if metric == "accuracy":
        return 1 / examples
    if metric in ("f1", "macro_f1", "matthews"):
        sizes = np.bincount(labels.astype(int))
        if metric == "f1" and max(classes or 0, len(sizes)) <= 2:
            return 1 / (2 * int(sizes[1])) if len(sizes) > 1 else 1 / examples
        present = sizes[sizes > 0]
        of_classes = float((1 / present).sum()) / len(present) ** 2
        return 2 * of_classes if metric == "matthews" else of_classes
    # correlations, areas and pictures are not right or wrong: one example changes them by a fraction of that
    return 1 / (3 * examples)

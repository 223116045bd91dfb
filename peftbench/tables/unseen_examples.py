"""What examples that were not drawn may add to a difference, which the bootstrap cannot show.

The bootstrap only redraws the examples there are: two rows that answer all of them alike differ in no draw, and five
answers in favour of one row stay in its favour. So each row's draws get noise for unseen examples, the same for all of
its seeds: the number of examples that it would win, less the number that it would lose, each Gamma(½) (Jeffreys's
posterior of a Poisson count of 0). The difference of two rows then has a Laplace term beside the bootstrap's. Where no
example tells two rows apart, the interval ends at 3.7 examples (ln 40), where the exact one for a count of 0 does. Six
differing examples that all favour one row tell the rows apart and five do not, as in the exact sign test.

The noise is small where it is not needed. Where two rows differ on m examples it makes their interval wider by 1.5 / m
of its width, and by less where the runs of a row differ among themselves: its variance is divided by 1 + v, v being the
variance over examples that each run has by itself, in examples. For the scores of such runs also vary over the seeds.
"""

from zlib import crc32

import numpy as np

from peftbench.tables.statistics import unshared_variance

# in examples: Laplace's quantile of 97.5 %, ln 20, becomes the exact upper limit of a count of 0, ln 40
_SCALE = np.log(40) / np.log(20)
# of a right answer's worth: by how much one example changes what is not right or wrong
_FRACTION = 1 / 3


def with_unseen_examples(draws: np.ndarray, step: float, row: str) -> np.ndarray:
    """Return the draws of a row, (1 + draws, seeds), with noise for unseen examples added, the same for all seeds.

    Args:
        step: by how much one example changes the score, see `score_step`.
        row: its label, the seed of the noise: rows vary independently, and each alike in every comparison.
    """
    generator = np.random.default_rng(crc32(row.encode(errors="backslashreplace")))
    count, seeds = len(draws) - 1, draws.shape[1]
    apart = max(0.0, seeds * unshared_variance(draws)) / step**2 if seeds > 1 else 0.0
    scale = _SCALE * step / np.sqrt(1 + apart)
    better, worse = generator.gamma(0.5, scale, (2, (count + 1) // 2))
    more = better - worse
    return draws + np.concatenate([[0.0], more, -more])[: count + 1, None]


def score_step(metric: str, labels: np.ndarray, classes: int | None = None) -> float:
    """Return by how much one more wrong answer lowers a high score, in the metric's own unit.

    Args:
        metric: as in `columns.SCORES`. labels: (examples, …). classes: of the task, where they are known.
    """
    examples = len(labels)
    if metric == "accuracy":
        return 1 / examples
    if metric in ("f1", "macro_f1", "matthews", "roc_auc"):
        sizes = np.bincount(labels.astype(int))
        if metric == "f1" and max(classes or 0, len(sizes)) <= 2:
            return 1 / (2 * int(sizes[1])) if len(sizes) > 1 else 1 / examples
        of_classes = _mean_over_classes(sizes)
        return {"matthews": 2 * of_classes, "roc_auc": _FRACTION * of_classes}.get(metric, of_classes)
    # pictures and correlations are not right or wrong: one example changes them by a fraction of that
    of_example = _FRACTION / examples
    if metric == "miou":
        return max(of_example, _mean_over_classes((labels > 0).sum(axis=0)))
    if metric in ("ap", "ap50", "ap75"):
        kinds = labels[..., 0]
        # those with an object of the class that is no crowd, as the score has no other classes
        pictures = [
            ((kinds == kind) & (labels[..., 5] == 0)).any(axis=1).sum() for kind in np.unique(kinds[kinds >= 0])
        ]
        return max(of_example, _mean_over_classes(np.array(pictures, int)))
    return of_example


def _mean_over_classes(sizes: np.ndarray) -> float:
    """Return what an example of a class is worth to a mean over classes, on average; `sizes`: examples of each."""
    present = sizes[sizes > 0]
    return float((1 / present).sum()) / len(present) ** 2 if len(present) else 0.0

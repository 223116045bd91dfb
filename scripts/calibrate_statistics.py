"""How often rows of equal truth get a false verdict, by simulation; writes its tables to docs/statistics.md.

    python scripts/calibrate_statistics.py

Takes about 40 minutes on one core. A simulated run is right on an example where a sum of normal parts stays under a
threshold: the example's difficulty (shared by all runs), what the example is for the row's method (shared by its
seeds) and what is the run's own. The threshold gives each seed its true accuracy, 85 % on average.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from statistics_page import write_section

from peftbench.tables.best import probabilities_best
from peftbench.tables.bootstrap import score_draws
from peftbench.tables.pooling import pool_rows
from peftbench.tables.simultaneous import join_comparisons
from peftbench.tables.statistics import difference_interval
from peftbench.tables.unseen_examples import score_step, with_unseen_examples

BEGIN, END = "<!-- begin: written by scripts/calibrate_statistics.py -->", "<!-- end -->"
ACCURACY = 0.85
# variances: with these, seeds of one row agree on 91 % of the examples and rows on 87 %
DIFFICULTY, METHOD, RUN = 2.0, 0.3, 0.35
DRAWS = 2000
EXAMPLES = (400, 1500, 5000, 10_000)
SEEDS = (2, 3, 5, 10)
# standard deviation over the seeds, in points, of the one row and the other
DEVIATIONS = ((0.0, 0.0), (1.0, 1.0), (3.0, 3.0), (0.3, 3.0))
# rows of a table whose comparisons are joint, and how many seeds each has where they differ
FAMILIES = (3, 5, 12)
UNEVEN = (10, 3, 5, 2)
PAIRS, BASELINE = "pairs", "baseline"
# between which P(best) is compared with what came true
LIMITS = (0, 0.05, 0.2, 0.5, 0.8, 1.01)


class Calibration(NamedTuple):
    """Of many simulated comparisons: share of false verdicts, mean width of their intervals, and the ideal width.

    The ideal is what one who knew all variances would need, 2 × 1.96 standard deviations of the difference.
    """

    error: float
    width: float
    ideal: float


def simulate_correct(
    generator: np.random.Generator,
    examples: int,
    seeds: int,
    deviations: Sequence[float],
    shifts: Sequence[float] = (),
) -> list[np.ndarray]:
    """Return for each row whether its runs are right, (seeds, examples); one row a deviation, in points.

    `shifts` are what each row's true accuracy is above the others', as a share.
    """
    shared = np.sqrt(DIFFICULTY) * generator.standard_normal(examples, dtype=np.float32)
    rows = []
    for deviation, shift in zip(deviations, shifts or [0.0] * len(deviations), strict=True):
        accuracies = np.clip(ACCURACY + shift + deviation / 100 * generator.standard_normal(seeds), 0.02, 0.98)
        thresholds = np.sqrt(DIFFICULTY + METHOD + RUN) * ndtri(accuracies)
        of_method = shared + np.sqrt(METHOD) * generator.standard_normal(examples, dtype=np.float32)
        of_run = np.sqrt(RUN) * generator.standard_normal((seeds, examples), dtype=np.float32)
        rows.append(of_method + of_run < thresholds[:, None])
    return rows


def accuracy_draws(rows: Sequence[np.ndarray], normal: np.ndarray) -> list[np.ndarray]:
    """Return what `score_draws` does for accuracy, (1 + draws, seeds) a row, from `normal` (draws, all seeds).

    Resampled accuracies have the covariance of being right, divided by the number of examples, and from 400 examples
    on a normal distribution; so drawn they take a thousandth of the time.
    """
    correct = np.concatenate(rows).astype(np.float32)
    means = correct.mean(axis=1, dtype=np.float64)
    covariance = (correct @ correct.T / correct.shape[1] - np.outer(means, means)) / correct.shape[1]
    values, vectors = np.linalg.eigh(covariance)
    deviations = normal @ (vectors * np.sqrt(np.maximum(values, 0))).T
    draws = means + np.vstack([np.zeros(len(means)), deviations])
    worth = 1 / correct.shape[1]
    return [
        with_unseen_examples(row, worth, str(number)) for number, row in enumerate(np.split(draws, len(rows), axis=1))
    ]


def calibrate(examples: int, seeds: int, deviations: Sequence[float], repetitions: int) -> Calibration:
    """Compare two rows of equal truth many times; `deviations` over the seeds of each, in points."""
    generator = np.random.default_rng(examples + seeds)
    normal = generator.standard_normal((DRAWS, 2 * seeds))
    found = [
        difference_interval(*accuracy_draws(simulate_correct(generator, examples, seeds, deviations), normal))
        for _ in range(repetitions)
    ]
    return summary(found)


def calibrate_bootstrap(metric: str, examples: int, seeds: int, repetitions: int) -> Calibration:
    """Do the same with the bootstrap itself, for a metric of two classes; a deviation of 1 point."""
    generator = np.random.default_rng(7)
    found = []
    for _ in range(repetitions):
        labels = (generator.random(examples) < 2 / 3).astype(int)
        rows = simulate_correct(generator, examples, seeds, (1.0, 1.0))
        draws = [score_draws(metric, labels, np.where(right, labels, 1 - labels)) for right in rows]
        worth = score_step(metric, labels)
        found.append(
            difference_interval(*(with_unseen_examples(row, worth, str(place)) for place, row in enumerate(draws)))
        )
    return summary(found)


class Family(NamedTuple):
    """Of many simulated tables: the share with a false verdict on any two rows, and the confidence of each."""

    error: float
    confidence: float


def calibrate_family(
    kind: str, examples: int, seeds: Sequence[int], deviations: Sequence[float], repetitions: int
) -> Family:
    """Compare rows of equal truth many times, at 95 % for all comparisons together.

    Args:
        kind: PAIRS, or BASELINE for all rows with the first.
        seeds, deviations: one a row; of the deviations as in `calibrate`.
    """
    generator = np.random.default_rng(examples + sum(seeds))
    normal = generator.standard_normal((DRAWS, len(seeds) * max(seeds)))
    labels = range(len(seeds))
    comparisons = list(combinations(labels, 2)) if kind == PAIRS else [(label, 0) for label in labels[1:]]
    wrong, confidences = 0, []
    for _ in range(repetitions):
        drawn = accuracy_draws(simulate_correct(generator, examples, max(seeds), deviations), normal)
        rows = {label: drawn[label][:, : seeds[label]] for label in labels}
        joint = join_comparisons(comparisons, rows)
        confidences.append(joint.confidence)
        wrong += any(
            difference_interval(rows[first], rows[second], joint.confidence, joint.pool(None)).excludes(0)
            for first, second in comparisons
        )
    return Family(wrong / repetitions, float(np.mean(confidences)))


def calibrate_best(
    rows: int, seeds: int, repetitions: int, limits: Sequence[float], examples: int = 1500
) -> list[tuple[float, float, int]]:
    """Return the mean of P(best), how often it was true, and of how many rows, between any two `limits`.

    True accuracies of rows lie 1 point apart (standard deviation), those of seeds of a row likewise.
    """
    generator = np.random.default_rng(rows + seeds)
    normal = generator.standard_normal((DRAWS, rows * seeds))
    probabilities, true = [], []
    for _ in range(repetitions):
        shifts = generator.standard_normal(rows) / 100
        correct = simulate_correct(generator, examples, seeds, [1.0] * rows, list(shifts))
        drawn = accuracy_draws(correct, normal)
        probabilities += probabilities_best(dict(enumerate(drawn)), pool_rows(drawn)).values()
        true += list(shifts == shifts.max())
    places = np.digitize(probabilities, limits)
    chosen = [places == place for place in range(1, len(limits))]
    return [
        (float(np.mean(np.array(probabilities)[mask])), float(np.mean(np.array(true)[mask])), int(mask.sum()))
        for mask in chosen
        if mask.any()
    ]


def summary(found: Sequence) -> Calibration:
    """Return what the intervals of many comparisons of equal rows come to."""
    error = np.mean([interval.excludes(0) for interval in found])
    width = np.mean([interval.high - interval.low for interval in found])
    return Calibration(error, width, 2 * 1.96 * np.std([interval.estimate for interval in found]))


def _tables(repetitions: int) -> list[str]:
    head = " | ".join(f"{first:g} and {second:g}" for first, second in DEVIATIONS)
    lines = [
        "Share of false verdicts, and mean width of the intervals in multiples of the ideal one, for several standard",
        f"deviations of the two rows' seeds in points. Nominal is 5 %, ± {_error_of(0.05, repetitions):.1f} from"
        f" {repetitions:,} repetitions.",
        "",
        f"| examples | seeds | {head} |",
        "| ---: | ---: |" + " ---: |" * len(DEVIATIONS),
    ]
    for examples in EXAMPLES:
        for seeds in SEEDS:
            found = [calibrate(examples, seeds, deviations, repetitions) for deviations in DEVIATIONS]
            lines.append(f"| {examples:,} | {seeds} | {cells(found)} |")
            print(lines[-1], flush=True)
    few = repetitions // 4
    lines += [
        "",
        f"The same with the bootstrap itself, for 400 examples and 1 point in both rows, from {few:,} repetitions:",
        "",
    ]
    lines += ["| metric | 2 seeds | 5 seeds |", "| --- | ---: | ---: |"]
    for metric in ("accuracy", "f1", "matthews"):
        found = [calibrate_bootstrap(metric, 400, seeds, few) for seeds in (2, 5)]
        lines.append(f"| {metric} | {cells(found)} |")
        print(lines[-1], flush=True)
    return [*lines, *_family_table(few), *_best_table(repetitions)]


def _best_table(repetitions: int) -> list[str]:
    lines = [
        "",
        f"P(best) in {repetitions:,} tables with 1,500 examples, where both the true scores of neighbouring rows and",
        "the seeds of a row differ by 1 point: its mean → how often that row was truly the best.",
        "",
        f"| rows | seeds | {' | '.join(f'{low:.0%} … {min(high, 1):.0%}' for low, high in pairwise(LIMITS))} |",
        "| ---: | ---: |" + " ---: |" * (len(LIMITS) - 1),
    ]
    for rows in FAMILIES[1:]:
        for seeds in SEEDS[1:]:
            found = calibrate_best(rows, seeds, repetitions, LIMITS)
            cells = (f"{probability:.0%} → {true:.0%}" for probability, true, _ in found)
            lines.append(f"| {rows} | {seeds} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


def _family_table(repetitions: int) -> list[str]:
    uneven = ", ".join(map(str, UNEVEN))
    head = " | ".join([*(f"{seeds} seeds" for seeds in SEEDS), f"{uneven}, {UNEVEN[0]} … seeds"])
    lines = [
        "",
        "Share of tables in which any comparison errs, at 95 % for all together and with 1,500 examples,"
        f" ± {_error_of(0.05, repetitions):.1f} from {repetitions:,} repetitions.",
        "After it, the number of comparisons that each confidence amounts to; Bonferroni's amounts to all of them.",
        "",
        f"| rows | comparisons | seeds' deviation | {head} |",
        "| ---: | --- | ---: |" + " ---: |" * (len(SEEDS) + 1),
    ]
    for rows in FAMILIES:
        for kind, comparisons in (
            (PAIRS, f"{rows * (rows - 1) // 2} pairs"),
            (BASELINE, f"{rows - 1} with the baseline"),
        ):
            for name, deviations in _deviations(rows).items():
                numbers = [*([seeds] * rows for seeds in SEEDS), [UNEVEN[row % len(UNEVEN)] for row in range(rows)]]
                found = [calibrate_family(kind, 1500, seeds, deviations, repetitions) for seeds in numbers]
                cells = (f"{100 * family.error:.1f} %, {0.05 / (1 - family.confidence):.1f}" for family in found)
                lines.append(f"| {rows} | {comparisons} | {name} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    return lines


def _deviations(rows: int) -> dict[str, list[float]]:
    """Return how much the seeds of each row vary, in points: all alike, one unlike the others, and half of them."""
    wild = (rows + 1) // 2
    return {
        "1": [1.0] * rows,
        "0.3, others 3": [0.3] + [3.0] * (rows - 1),
        "3, others 0.3": [3.0] + [0.3] * (rows - 1),
        f"3 of {wild}, others 0.3": [3.0] * wild + [0.3] * (rows - wild),
    }


def cells(found: Sequence[Calibration]) -> str:
    """Write shares of false verdicts and widths as the cells of a Markdown row."""
    return " | ".join(
        f"{100 * calibration.error:.1f} %, × {calibration.width / calibration.ideal:.2f}" for calibration in found
    )


def _error_of(share: float, repetitions: int) -> float:
    """Return the standard error of a share found by simulation, in percent."""
    return 100 * float(np.sqrt(share * (1 - share) / repetitions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000, help="simulated comparisons a figure (default 2000)")
    arguments = parser.parse_args()
    tables = _tables(arguments.repetitions)
    write_section(BEGIN, END, tables)


if __name__ == "__main__":
    main()

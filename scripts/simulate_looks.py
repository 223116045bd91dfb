"""How often `until=decided` errs and how many seeds it takes, by simulation; writes its table to docs/statistics.md.

    python scripts/simulate_looks.py

Takes about 40 minutes on one core. Runs are simulated as in `calibrate_statistics.py`: accuracy of 85 %, seeds with a
standard deviation of 1 point, on 2,638 examples, the test split of `movies_binary`.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from calibrate_statistics import accuracy_draws, simulate_correct
from statistics_page import write_section

from peftbench.tables.pairs import judged
from peftbench.tables.sequential import follow
from peftbench.tables.simultaneous import join_comparisons
from peftbench.tables.statistics import difference_interval
from peftbench.tables.table import Pair
from peftbench.tables.verdicts import BETTER, LOWER, OPEN, SAME

BEGIN, END = "<!-- begin: written by scripts/simulate_looks.py -->", "<!-- end of simulate_looks.py -->"
EXAMPLES, DEVIATION, MOST, DELTA, DRAWS = 2638, 1.0, 20, 1.0, 2000
# true differences of the rows from the baseline, which comes first, in points
TRUTHS = {
    "5 equal rows": (0.0, 0.0, 0.0, 0.0, 0.0),
    "one row 3 points above": (0.0, 0.0, 0.0, 0.0, 3.0),
    "steps of 2 points": (0.0, 2.0, 4.0, 6.0, 8.0),
}


class Found(NamedTuple):
    """Of many simulated tables: share with a wrong verdict, mean runs, and share of comparisons that were told."""

    wrong: float
    runs: float
    decided: float


def simulate(truths: Sequence[float], repetitions: int, most: int = MOST, fixed: bool = False) -> Found:
    """Decide tables of rows with these true differences, by looks or by one look behind all seeds (`fixed`)."""
    generator = np.random.default_rng(len(truths))
    normal = generator.standard_normal((DRAWS, len(truths) * most))
    labels = [str(number) for number in range(len(truths))]
    shift = dict(zip(labels, truths, strict=True))
    wrong = runs = decided = 0.0
    for _ in range(repetitions):
        drawn = accuracy_draws(simulate_correct(generator, EXAMPLES, most, [DEVIATION] * len(labels)), normal)
        # a true difference moves all of a row's scores: what they vary by stays as it is
        rows = {label: row + shift[label] / 100 for label, row in zip(labels, drawn, strict=True)}
        pairs, seeds = _decide(rows, most, fixed)
        wrong += any(_is_wrong(pair, shift) for pair in pairs)
        best = max(rows, key=lambda label: rows[label][0, : seeds[label]].mean())
        asked = [pair for pair in pairs if {pair.row, pair.other} & {labels[0], best}]
        decided += np.mean([pair.verdict != OPEN for pair in asked])
        runs += sum(seeds.values())
    return Found(wrong / repetitions, runs / repetitions, decided / repetitions)


def _decide(rows: Mapping[str, np.ndarray], most: int, fixed: bool) -> tuple[list[Pair], Mapping[str, int]]:
    def compare(seeds: Mapping[str, int], compared: Sequence[str], alpha: float) -> list[Pair]:
        taken = {label: rows[label][:, : seeds[label]] for label in seeds}
        joint = join_comparisons(list(combinations(compared, 2)), taken, alpha)
        pool = joint.pool(None)
        found = []
        for first, second in combinations(compared, 2):
            difference = difference_interval(taken[first], taken[second], joint.confidence, pool).scaled(100)
            draws = 100 * taken[first], 100 * taken[second]
            found.append(judged(first, second, difference, *draws, joint.confidence, pool.scaled(100), DELTA, EXAMPLES))
        return found

    available = dict.fromkeys(rows, most)
    if fixed:
        return compare(available, list(rows), 0.05), available
    course = follow(
        available,
        lambda row, seeds: float(rows[row][0, :seeds].mean()),
        compare,
        lambda pair: pair.verdict != OPEN,
        next(iter(rows)),
        most,
    )
    return course.pairs, course.seeds


def _is_wrong(pair: Pair, truths: Mapping[str, float]) -> bool:
    difference = truths[pair.row] - truths[pair.other]
    wrong = {BETTER: difference <= 0, LOWER: difference >= 0, SAME: abs(difference) > DELTA, OPEN: False}
    return wrong[pair.verdict or OPEN]


def _table(repetitions: int) -> list[str]:
    lines = [
        "Simulated tables of 5 rows: the share with any wrong verdict, the number of runs trained, and the share of",
        f"the comparisons with the baseline and the highest row that were decided; up to {MOST} seeds per row,"
        f" δ = {DELTA:g} point.",
        f"For comparison, {MOST} seeds of every row at once.",
        "",
        "| truth | tables | wrong | runs | decided | wrong, all at once | runs | decided |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, truths in TRUTHS.items():
        tables = repetitions if not any(truths) else repetitions // 10
        found = [simulate(truths, tables), simulate(truths, repetitions // 10, fixed=True)]
        figures = " | ".join(
            f"{100 * result.wrong:.1f} % | {result.runs:.0f} | {100 * result.decided:.0f} %" for result in found
        )
        lines.append(f"| {name} | {tables:,} | {figures} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repetitions", type=int, default=10_000, help="null tables; a tenth of others (default: %(default)s)"
    )
    arguments = parser.parse_args()
    write_section(BEGIN, END, _table(arguments.repetitions))


if __name__ == "__main__":
    main()

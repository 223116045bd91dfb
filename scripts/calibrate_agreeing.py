"""How often tables of few examples err whose seeds all agree, by simulation; writes its table to docs/statistics.md.

    python scripts/calibrate_agreeing.py

Takes about 5 minutes on one core. Examples alone make such rows uncertain, as they do deterministic methods and rows
that collapsed to one class, and few of them hardly show how rows differ.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from statistics_page import write_section

from peftbench.tables.bootstrap import resamples
from peftbench.tables.simultaneous import join_comparisons
from peftbench.tables.statistics import difference_interval
from peftbench.tables.unseen_examples import with_unseen_examples
from peftbench.tables.verdicts import BETTER, LOWER, OPEN, SAME, verdict

BEGIN = "<!-- begin: written by scripts/calibrate_agreeing.py -->"
END = "<!-- end of calibrate_agreeing.py -->"
EXAMPLES, SEEDS, DELTA = (20, 50, 100, 200, 400), 3, 1.0
# by name: each row's true share of wrong answers in percent, and whether the better errs only where the worse does
TABLES = {
    "equal, 1 % wrong": ((1.0, 1.0), False),
    "equal, 6.5 % wrong": ((6.5, 6.5), False),
    "equal, 30 % wrong": ((30.0, 30.0), False),
    "1.01 points": ((3.0, 4.01), True),
    "1.5 points": ((3.0, 4.5), True),
    "2 points": ((3.0, 5.0), True),
    "5 rows, steps of 1.5": ((3.0, 4.5, 6.0, 7.5, 9.0), True),
    "10 points": ((3.0, 13.0), True),
}


class Agreeing(NamedTuple):
    """Of simulated tables whose seeds agree: the share with a wrong verdict, and of comparisons with the right one."""

    wrong: float
    told: float


def calibrate_agreeing(
    examples: int, errors: Sequence[float], shared: bool, repetitions: int, more: bool = True
) -> Agreeing:
    """Judge rows whose seeds all answer alike, so that examples alone make them uncertain, by the bootstrap itself.

    Args:
        errors: each row's true share of wrong answers, in percent.
        shared: whether the better row errs on nothing but what the worse one does too; or else on other examples.
        more: what examples more might bring is part of the draws, as in a table; else there is the bootstrap alone.
    """
    generator = np.random.default_rng(examples)
    counts = resamples(examples).astype(np.float32)
    truths, pairs = -np.asarray(errors), list(combinations(range(len(errors)), 2))
    wrong = told = 0.0
    for repetition in range(repetitions):
        places = generator.random(examples)
        shifts = np.zeros(len(errors)) if shared else np.arange(len(errors)) / len(errors)
        right = np.stack([(places + shift) % 1 >= share / 100 for shift, share in zip(shifts, errors, strict=True)])
        means = counts @ right.T.astype(np.float32) / examples
        rows = {row: 100 * np.repeat(means[:, [row]], SEEDS, axis=1) for row in range(len(errors))}
        if more:
            rows = {
                row: with_unseen_examples(drawn, 100 / examples, f"{repetition} {row}") for row, drawn in rows.items()
            }
        joint = join_comparisons(pairs, rows)
        found = []
        for one, other in pairs:
            interval = difference_interval(rows[one], rows[other], joint.confidence, joint.pool(None))
            said, apart = verdict(interval.low, interval.high, DELTA), truths[one] - truths[other]
            is_right = {BETTER: apart > 0, LOWER: apart < 0, SAME: abs(apart) <= DELTA, OPEN: True}[said]
            found.append((not is_right, is_right and said != OPEN))
        wrong += any(false for false, _ in found)
        told += float(np.mean([true for _, true in found]))
    return Agreeing(wrong / repetitions, told / repetitions)


def _table(repetitions: int, more: bool) -> list[str]:
    error = 100 * float(np.sqrt(0.05 * 0.95 / repetitions))
    lines = [
        f"Few examples, and {SEEDS} seeds that agree on all of them: share of tables with a wrong verdict, and after",
        "it the share of comparisons with the right one. Equal rows err on different examples; of two unequal rows,",
        "the better errs only where the worse does, on 3 % of the examples.",
        f"δ = {DELTA:g} point, ± {error:.1f} from {repetitions:,} repetitions.",
        "",
        f"| examples | {' | '.join(TABLES)} |",
        "| ---: |" + " ---: |" * len(TABLES),
    ]
    for examples in EXAMPLES:
        found = [calibrate_agreeing(examples, *errors, repetitions, more) for errors in TABLES.values()]
        cells = (f"{100 * one.wrong:.1f} %, {100 * one.told:.0f} %" for one in found)
        lines.append(f"| {examples:,} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=500, help="simulated tables a figure (default: %(default)s)")
    parser.add_argument("--bootstrap-alone", action="store_true", help="without what examples more might bring; print")
    arguments = parser.parse_args()
    table = _table(arguments.repetitions, not arguments.bootstrap_alone)
    if not arguments.bootstrap_alone:
        write_section(BEGIN, END, table)


if __name__ == "__main__":
    main()

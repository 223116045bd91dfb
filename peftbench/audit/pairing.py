"""From rows of (system, seed, example, value) to what each run of each system scored on the same examples."""

from typing import NamedTuple

import numpy as np

from peftbench.audit.evidence import System
from peftbench.errors import UserError


class Names(NamedTuple):
    """A column of texts: the different ones, and for each row (rows,) which of them it holds."""

    texts: list[str]
    codes: np.ndarray


def pair(
    where: str,
    systems: Names,
    seeds: Names,
    examples: Names,
    values: np.ndarray,
    mend: str = "keep one row of each",
) -> dict[str, System]:
    """Return the systems with their values over all examples, in the order in which they occur.

    Args:
        where: the source, for errors.
        systems, seeds, examples: of each row. values: (rows,).
        mend: what is to be done about an example that a run has twice.

    Raises UserError where a run has an example twice, or lacks one that another run has.
    """
    runs, run_codes = np.unique(systems.codes.astype(np.int64) * len(seeds.texts) + seeds.codes, return_inverse=True)
    shape = len(runs), len(examples.texts)
    cells = run_codes.astype(np.int64) * shape[1] + examples.codes
    # runs × examples fit into memory where each is there once: of seeds that differ in every row they may not
    if shape[0] * shape[1] != len(cells) or (np.bincount(cells, minlength=len(cells)) != 1).any():
        of_runs = (divmod(run, len(seeds.texts)) for run in runs.tolist())
        named = [f"{systems.texts[system]}, seed {seeds.texts[seed]}" for system, seed in of_runs]
        raise UserError(f"{where}: {_fault(cells, named, examples.texts, mend)}")
    matrix = np.empty(shape)
    matrix.flat[cells] = values
    found: dict[str, System] = {}
    for code in dict.fromkeys(systems.codes.tolist()):
        rows = np.flatnonzero(runs // len(seeds.texts) == code)
        of_system = matrix[rows]
        names = [seeds.texts[runs[row] % len(seeds.texts)] for row in rows]
        found[systems.texts[code]] = System(names, of_system.mean(axis=1), of_system)
    return found


def _fault(cells: np.ndarray, runs: list[str], examples: list[str], mend: str) -> str:
    """Say which run has an example twice, or lacks some; `cells` are (rows,), the run's number × examples + example."""
    found, times = np.unique(cells, return_counts=True)
    if (twice := np.flatnonzero(times > 1)).size:
        run, example = divmod(int(found[twice[0]]), len(examples))
        others = f", and {len(twice) - 1:,} others" if len(twice) > 1 else ""
        return f"{runs[run]} has example {examples[example]!r} {times[twice[0]]} times{others}: {mend}"
    lacking = len(examples) - np.bincount(found // len(examples))
    run = int(lacking.argmax())
    there = np.zeros(len(examples), bool)
    there[found[found // len(examples) == run] % len(examples)] = True
    return (
        f"{runs[run]} lacks {lacking[run]:,} of {len(examples):,} examples, {examples[int(there.argmin())]!r} among"
        " them: all runs must have the same"
    )

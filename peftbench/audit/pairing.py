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
    cells = run_codes * shape[1] + examples.codes
    times = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)

    def named(run: int) -> str:
        system, seed = divmod(int(runs[run]), len(seeds.texts))
        return f"{systems.texts[system]}, seed {seeds.texts[seed]}"

    if (twice := np.argwhere(times > 1)).size:
        run, example = twice[0]
        raise UserError(
            f"{where}: {named(run)} has example {examples.texts[example]!r} {times[run, example]} times"
            f"{f', and {len(twice) - 1:,} others' if len(twice) > 1 else ''}: {mend}"
        )
    if (lacking := (times == 0).sum(axis=1)).any():
        run = int(lacking.argmax())
        example = int((times[run] == 0).argmax())
        raise UserError(
            f"{where}: {named(run)} lacks {lacking[run]:,} of {shape[1]:,} examples, {examples.texts[example]!r} among"
            " them: all runs must have the same"
        )
    matrix = np.empty(shape)
    matrix.flat[cells] = values
    found: dict[str, System] = {}
    for code in dict.fromkeys(systems.codes.tolist()):
        rows = np.flatnonzero(runs // len(seeds.texts) == code)
        of_system = matrix[rows]
        names = [seeds.texts[runs[row] % len(seeds.texts)] for row in rows]
        found[systems.texts[code]] = System(names, of_system.mean(axis=1), of_system)
    return found

"""What others measured: scores of systems by seed, over examples where those are stored, checked."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from peftbench.errors import UserError

LEAST_EXAMPLES = 50
# a mean this many times another is on another scale, where the other lies between 0 and 1: percent, most often
_OTHER_SCALE, _LEAST_SHARE = 20, 0.05
# fourth powers of scores that are larger, or smaller than its inverse, are no numbers any more
_EXTREME = 1e50


@dataclass(frozen=True)
class System:
    """The scores of one system, higher is better.

    Attributes:
        seeds: names of its runs. scores: (seeds,), the mean over the examples.
        values: (seeds, examples), None where they are not stored.
        errors: (seeds,), standard errors of the scores over the examples, where the values are not stored.
    """

    seeds: list[str]
    scores: np.ndarray
    values: np.ndarray | None = None
    errors: np.ndarray | None = None


@dataclass(frozen=True)
class Evidence:
    """What was read: systems by their names; `paired` where all of them have values of the same examples.

    Attributes:
        source: what it was read from, in words. metric: what is scored.
        examples: how many every score is over. notes: what the reader has to say of its source.
    """

    source: str
    metric: str
    systems: Mapping[str, System]
    examples: int
    notes: list[str] = field(default_factory=list)

    @property
    def paired(self) -> bool:
        """Whether what every system scored on every example is known."""
        return all(system.values is not None for system in self.systems.values())

    @property
    def below_one(self) -> bool:
        """Whether all scores lie between -1 and 1."""
        return all(max(map(abs, _bounds(system))) <= 1 for system in self.systems.values())

    @property
    def shares(self) -> bool:
        """Whether all scores lie between 0 and 1."""
        return all(_bounds(system)[0] >= 0 and _bounds(system)[1] <= 1 for system in self.systems.values())


def refuse_twice(where: str, runs: Iterable[tuple[str, str, Path]]) -> None:
    """Raise UserError where two files are of one run; `runs` are system, seed and file."""
    files: dict[tuple[str, str], list[Path]] = {}
    for system, seed, path in runs:
        files.setdefault((system, seed), []).append(path)
    for (system, seed), paths in files.items():
        if len(paths) > 1:
            named = ", ".join(path.name for path in paths)
            raise UserError(f"{where}: {system}, seed {seed} is there more than once: keep one of {named}")


def checked(evidence: Evidence) -> Evidence:
    """Return it; raises UserError where there is too little to compare, or scores are no numbers of one scale."""
    where = evidence.source
    if len(evidence.systems) < 2:
        raise UserError(
            f"{where}: there is one system only, {next(iter(evidence.systems))}: nothing to compare it with"
        )
    if evidence.examples < LEAST_EXAMPLES:
        raise UserError(
            f"{where}: too few examples to judge by, {evidence.examples}: it takes {LEAST_EXAMPLES} at least"
        )
    for name, system in evidence.systems.items():
        if not all(map(math.isfinite, (*system.scores, *_bounds(system)))):
            raise UserError(f"{where}: a score of {name} is NaN or infinite: mend or remove that run")
    largest = max(max(map(abs, _bounds(system))) for system in evidence.systems.values())
    if largest and not 1 / _EXTREME < largest < _EXTREME:
        raise UserError(f"{where}: the largest score is {largest:g}, too extreme to compute with: bring all to 0 … 1")
    _check_scale(evidence)
    return evidence


def _check_scale(evidence: Evidence) -> None:
    """Raise UserError where some runs are scored from 0 to 1 and others in percent."""
    runs = [
        (f"{name}, seed {seed}", score, of_run.max() if of_run is not None else score)
        for name, system in evidence.systems.items()
        for seed, score, of_run in zip(
            system.seeds,
            system.scores,
            system.values if system.values is not None else [None] * len(system.seeds),
            strict=True,
        )
    ]
    small = [run for run in runs if run[2] <= 1 and run[1] >= _LEAST_SHARE]
    large = [run for run in runs if run[2] > 1]
    for low in small:
        for high in large:
            if high[1] > _OTHER_SCALE * low[1]:
                raise UserError(
                    f"{evidence.source}: scores are on two scales: {low[0]} has {low[1]:.4g}, {high[0]} {high[1]:.4g}:"
                    " bring all to one, 0 … 1 or percent"
                )


def _bounds(system: System) -> tuple[float, float]:
    values = system.scores if system.values is None else system.values
    return float(values.min()), float(values.max())

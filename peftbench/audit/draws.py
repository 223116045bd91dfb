"""What the scores of an audit might have been on other examples: draws in the form that our tables' statistics take.

Scores are means over the examples, and of 50 or more such means are normal. Their covariance is known without drawing
examples, so that 100,000 of them cost no more than 100: of runs over the same examples it is that of the values
divided by n (what is hard about an example counts for all systems alike), and what few differing examples do not show
is added as in our own tables (`tables/unseen_examples.py`). Where single examples are not stored, systems
are taken as independent, which makes differences less sure than they are; the seeds of one system are taken to depend
on the examples all alike, so that more of them do not make up for few examples.
"""

from collections.abc import Mapping

import numpy as np

from peftbench.audit.evidence import Evidence, System
from peftbench.tables.unseen_examples import with_unseen_examples

DRAWS = 10_000


def draw_scores(evidence: Evidence) -> dict[str, np.ndarray]:
    """Return for each system its scores as they are (first) and as drawn, (1 + DRAWS, seeds)."""
    generator = np.random.default_rng(0)
    deviations = _paired(evidence.systems, generator) if evidence.paired else _unpaired(evidence.systems, generator)
    draws = {
        # the draws of a seed together, which are taken so
        name: np.asfortranarray(np.vstack([system.scores, system.scores + deviations[name]]))
        for name, system in evidence.systems.items()
    }
    if not evidence.paired:
        return draws
    step = _score_step(evidence.systems)
    return {name: with_unseen_examples(of_system, step, name) for name, of_system in draws.items()}


def _paired(systems: Mapping[str, System], generator: np.random.Generator) -> dict[str, np.ndarray]:
    values = np.concatenate([system.values for system in systems.values() if system.values is not None])
    examples = values.shape[1]
    covariance = np.atleast_2d(np.cov(values)) / examples
    variances, directions = np.linalg.eigh(covariance)
    root = directions * np.sqrt(np.maximum(variances, 0))
    drawn = _normal(generator, len(values)) @ root.T
    ends = np.cumsum([len(system.seeds) for system in systems.values()])[:-1]
    return dict(zip(systems, np.split(drawn, ends, axis=1), strict=True))


def _score_step(systems: Mapping[str, System]) -> float:
    """Return by how much one example sets scores apart at most, by the values that there are.

    Where no run differs from another it is by how much examples differ: 1 of right and wrong answers, either way.
    """
    values = np.concatenate([system.values for system in systems.values() if system.values is not None])
    # what an example is worth to all runs alike, as a long text's likelihood, sets none of them apart
    return float(np.ptp(values, axis=0).max() or np.ptp(values) or 1.0) / values.shape[1]


def _unpaired(systems: Mapping[str, System], generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: _normal(generator, 1) * system.errors for name, system in systems.items()}


def _normal(generator: np.random.Generator, figures: int) -> np.ndarray:
    """Return (DRAWS, figures) standard normal draws, each with its opposite, so that they are centred exactly."""
    half = generator.standard_normal((DRAWS // 2, figures))
    return np.concatenate([half, -half])

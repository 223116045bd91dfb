"""A table whose rows get more seeds while their comparisons are open: how far it has come."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peftbench.tables.collect import RunState
from peftbench.tables.evidence import read_evidence
from peftbench.tables.pairs import compare_pairs
from peftbench.tables.scored import RowScores
from peftbench.tables.sequential import Course, follow
from peftbench.tables.spec import TableSpec
from peftbench.tables.table import Pair
from peftbench.tables.verdicts import OPEN


@dataclass
class Seen:
    """What one process has computed of a table, so that its next look costs what is new: rows, and earlier looks."""

    rows: dict[str, RowScores] = field(default_factory=dict)
    cached_looks: dict[Hashable, list[Pair]] = field(default_factory=dict)


def follow_table(
    spec: TableSpec, found: Sequence[RunState], seen: Seen | None = None, tried: Collection[Path] | None = None
) -> Course:
    """Return how far a table has come with the runs there are.

    Args:
        seen: of earlier calls, in which runs were added.
        tried: the runs that were tried by now, by their folders: one of them that is lacking fails its row. None: those
            fail it whose records say so.
    """
    metric, seen = str(found[0].planned.config["task"]["metrics"][0]), seen or Seen()
    labels = [row.label for row in spec.rows]
    shown, evidence = read_evidence([run for run in found if run.planned.label in labels])
    scored = {}
    for label in labels:
        if used := {run.planned.seed: run for run in shown if run.planned.label == label and run.used}:
            scored[label] = RowScores({seed: evidence[run.key].predictions for seed, run in used.items()}, label=label)
            if label in seen.rows:
                scored[label].take_draws(seen.rows[label], metric)
    seen.rows = scored
    odd = {run.key for run in found if run.used} - evidence.keys()
    failed = {
        run.planned.label
        for run in shown
        if not run.used and (run.failed if tried is None else run.planned.folder in tried or run.key in odd)
    }
    return follow_scores(spec, scored, metric, seen, failed)


def follow_scores(
    spec: TableSpec,
    scored: Mapping[str, RowScores],
    metric: str,
    seen: Seen | None = None,
    failed: Collection[str] = (),
) -> Course:
    """Return how far rows have come with what their runs said; their seeds count as far as none before is missing.

    Rows that have `failed` are compared with none, and waited for no more.
    """
    assert spec.most_seeds is not None
    rows = [row.label for row in spec.rows if row.label not in failed]
    available = {row: _without_gap(scored.get(row), spec.seeds) for row in rows}
    looked = (seen or Seen()).cached_looks

    def compare(seeds: Mapping[str, int], compared: Sequence[str], alpha: float) -> list[Pair]:
        look = (*seeds.items(), *compared)
        if look not in looked:
            rows = {row: scored[row].first(count, metric) for row, count in seeds.items()}
            looked[look] = compare_pairs(rows, metric, spec.delta, alpha, compared)
        return looked[look]

    return follow(
        available,
        lambda row, seeds: float(scored[row].draws(metric)[0, :seeds].mean()),
        compare,
        lambda pair: pair.verdict != OPEN,
        spec.baseline,
        spec.most_seeds,
    )


def _without_gap(scored: RowScores | None, seeds: Sequence[int]) -> int:
    there = scored.seeds if scored else []
    return next((count for count, seed in enumerate(seeds) if seed not in there), len(seeds))

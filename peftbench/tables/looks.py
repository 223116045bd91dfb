"""A table whose rows get more seeds while their comparisons are open: how far it has come."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from peftbench.tables.collect import Found
from peftbench.tables.columns import SCORES
from peftbench.tables.evidence import read_evidence
from peftbench.tables.pairs import compare_pairs
from peftbench.tables.scored import RowScores
from peftbench.tables.sequential import Course, follow, looks
from peftbench.tables.spec import TableSpec
from peftbench.tables.table import Pair
from peftbench.tables.verdicts import OPEN


@dataclass
class Seen:
    """What one process has computed of a table, so that its next look costs what is new: rows, and earlier looks."""

    rows: dict[str, RowScores] = field(default_factory=dict)
    looks: dict[Hashable, list[Pair]] = field(default_factory=dict)


def follow_table(spec: TableSpec, found: Sequence[Found], seen: Seen | None = None) -> Course:
    """Return how far a table has come with the runs there are; `seen` is of earlier calls, in which runs were added."""
    metric, seen = str(found[0].planned.config["task"]["metrics"][0]), seen or Seen()
    labels = [row.label for row in spec.rows]
    shown, evidence = read_evidence([run for run in found if run.planned.label in labels])
    scored = {}
    for label in labels:
        if used := {run.planned.seed: run for run in shown if run.planned.label == label and run.used}:
            scored[label] = RowScores({seed: evidence[run.key].predictions for seed, run in used.items()}, label=label)
            if metric in SCORES and label in seen.rows:
                scored[label].take_draws(seen.rows[label], metric)
    seen.rows = scored
    return follow_scores(spec, scored, metric, seen)


def follow_scores(spec: TableSpec, scored: Mapping[str, RowScores], metric: str, seen: Seen | None = None) -> Course:
    """Return how far rows have come with what their runs said; their seeds count as far as none before is missing."""
    assert spec.most_seeds is not None
    available = {row.label: _without_gap(scored.get(row.label), spec.seeds) for row in spec.rows}
    if metric not in SCORES:
        first = looks(spec.most_seeds)[0]
        return Course(dict.fromkeys(available, first), [], [], [], 1, 0.0, min(available.values()) >= first)

    looked = (seen or Seen()).looks

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

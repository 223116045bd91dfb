"""From other people's evidence to a table in the form of our own: systems as rows, compared with the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from math import inf
from pathlib import Path

import numpy as np

from peftbench.audit.draws import draw_scores
from peftbench.audit.evidence import Evidence
from peftbench.audit.one_seed import compare_runs
from peftbench.tables.columns import COLUMNS
from peftbench.tables.notes import how_to_read_groups
from peftbench.tables.pairs import compare_draws
from peftbench.tables.pooling import UNPOOLED, Pool, pool_rows
from peftbench.tables.ranking import ranked_rows
from peftbench.tables.simultaneous import join_comparisons
from peftbench.tables.statistics import score_interval
from peftbench.tables.table import Cell, Column, Pair, Row, RunPoint, Table, format_cell
from peftbench.tables.verdicts import BETTER, LOWER

SCORE = "score"


def build_audit(evidence: Evidence, delta: float, command: str) -> Table:
    """Return the table, the best system first.

    Args:
        evidence: what was read.
        delta: the largest difference of systems that are called not different, in points.
        command: what the user types to make the table.
    """
    unit, title = _unit(evidence)
    systems = dict(sorted(evidence.systems.items(), key=lambda named: -named[1].scores.mean()))
    draws = {name: unit * of_system for name, of_system in draw_scores(replace(evidence, systems=systems)).items()}
    several = pool_rows(of_system for of_system in draws.values() if of_system.shape[1] > 1)
    widest = unit if evidence.shares else inf
    pairs = _pairs(draws, several, delta, evidence.examples, widest)
    best = next(iter(systems))
    against = {pair.other: pair.reversed() for pair in pairs if pair.row == best}
    rows = [
        Row(
            name,
            [],
            name == best,
            _cells(draws[name], several, against.get(name), widest),
            _runs(evidence, name),
            "",
            against.get(name),
        )
        for name in systems
    ]
    # other systems' seeds say nothing of a single run
    pool = UNPOOLED if any(of_system.shape[1] == 1 for of_system in draws.values()) else several
    rows = ranked_rows(rows, {name: _of_several(of_system) for name, of_system in draws.items()}, pairs, pool)
    score = Column(SCORE, evidence.metric, title)
    columns = [score, COLUMNS["p_best"], replace(COLUMNS["difference"], title="difference to the best")]
    return Table(
        name="audit",
        title=f"Audit of {Path(evidence.source).name}",
        command=command,
        model="",
        task="",
        seeds=list(range(max(len(system.seeds) for system in systems.values()))),
        baseline=best,
        primary=SCORE,
        evaluation=Path(evidence.source).name,
        ceiling=None,
        examples=evidence.examples,
        columns=columns,
        all_columns=columns,
        rows=rows,
        claims=[],
        pairs=pairs,
        conclusion=_conclusion(rows, pairs, score),
        reading=[*_reading(evidence), *how_to_read_groups(delta, pairs, rows, "--delta")],
        notes=evidence.notes,
        environment={},
        delta=delta,
    )


def _unit(evidence: Evidence) -> tuple[float, str]:
    """Return what scores are multiplied by, so that differences are points, and the unit that this gives."""
    if evidence.shares:
        return 100.0, "%"
    return (100.0, "hundredths") if evidence.below_one else (1.0, "")


def _of_several(draws: np.ndarray, seeds: int = 2) -> np.ndarray:
    """Return draws of two seeds or more: one seed counts as if all others were like it, which the reading says."""
    return draws if draws.shape[1] > 1 else np.repeat(draws, seeds, axis=1)


def _pairs(draws: Mapping[str, np.ndarray], several: Pool, delta: float, examples: int, widest: float) -> list[Pair]:
    """Return all differences, none beyond ± `widest`."""
    if all(of_system.shape[1] == 1 for of_system in draws.values()):
        return compare_runs(draws, delta, examples)
    rows = {name: _of_several(of_system) for name, of_system in draws.items()}
    compared = list(combinations(rows, 2))
    confidence = join_comparisons(compared, rows, kind=lambda name: draws[name].shape[1] > 1).confidence
    pairs = []
    for first, second in compared:
        single = min(draws[first].shape[1], draws[second].shape[1]) == 1
        pool = UNPOOLED if single else several
        # as often as the other: of two alone it would leave the other's spread a single degree of freedom
        most = max(rows[first].shape[1], rows[second].shape[1])
        two = {name: _of_several(draws[name], most) for name in (first, second)}
        pair = compare_draws(first, second, two, confidence, pool, delta, examples, widest)
        pairs.append(replace(pair, needs_seeds=None, single=True) if single else pair)
    return pairs


def _cells(draws: np.ndarray, several: Pool, against: Pair | None, widest: float) -> dict[str, Cell]:
    scores = draws[0]
    seeds = len(scores)
    sd = float(scores.std(ddof=1)) if seeds > 1 else None
    interval = score_interval(_of_several(draws), pool=several if seeds > 1 else UNPOOLED)
    interval = interval.within(0.0 if widest < inf else -inf, widest)
    cells = {SCORE: Cell(interval.estimate, sd, seeds, interval.low, interval.high)}
    if against is not None:
        apart = against.verdict in (BETTER, LOWER)
        cells["difference"] = Cell(against.value, None, seeds, against.low, against.high, apart)
    return cells


def _runs(evidence: Evidence, name: str) -> list[RunPoint]:
    system = evidence.systems[name]
    return [
        RunPoint(
            f"{name}, seed {seed}", number, evidence.source, "finished", used=True, metrics={"all": {SCORE: score}}
        )
        for number, (seed, score) in enumerate(zip(system.seeds, map(float, system.scores), strict=True))
    ]


def _conclusion(rows: Sequence[Row], pairs: Sequence[Pair], score: Column) -> str:
    """Say in two sentences what cannot be told from the best, and how many differences stand."""
    best, *others = rows
    tied = [row.label for row in others if row.against and row.against.verdict not in (BETTER, LOWER)]
    apart = {frozenset((pair.row, pair.other)) for pair in pairs if pair.verdict in (BETTER, LOWER)}
    neighbours = sum(frozenset((row.label, other.label)) in apart for row, other in pairwise(rows))
    named = f"{', '.join(tied[:5])}{f' and {len(tied) - 5} others' if len(tied) > 5 else ''}"
    unit = f" {score.unit}" if score.unit else ""
    highest = (
        f"Highest {score.title}: {best.label}, {format_cell(best.cells[SCORE], score)}{unit};"
        f" {f'not told from it: {named}' if tied else 'better than every other'}."
    )
    if len(pairs) < 2:  # which that has said already
        return highest
    return (
        f"{highest} Of {len(pairs):,} pairs of systems {len(apart):,} {'is' if len(apart) == 1 else 'are'} told apart,"
        f" of {len(others):,} neighbours in this order {neighbours:,}."
    )


def _reading(evidence: Evidence) -> list[str]:
    """Say how to read the figures, and what cannot be known."""
    lines = [
        "mean ± standard deviation over the seeds; bold: told from the best; plots: 95 % each (docs/statistics.md)"
    ]
    if evidence.paired:
        lines.append("paired: what every system scored on each example is known")
    else:
        lines.append(
            "unpaired: single examples are not stored, so systems are taken as independent; where they answered the"
            " same ones, differences are surer than shown"
        )
    single = [name for name, system in evidence.systems.items() if len(system.seeds) == 1]
    if single:
        some = f"{', '.join(single[:3])}{' and others' if len(single) > 3 else ''}"
        whose = "every system" if len(single) == len(evidence.systems) else some
        lines.append(
            f"one run alone of {whose}: differences hold for these runs, on other examples of the kind. Whether they"
            " hold for another seed, and what more seeds would tell, cannot be known from one"
        )
    return lines

"""From other people's evidence to a table in the form of our own: systems as rows, compared with the best of them."""

from itertools import combinations
from pathlib import Path

import numpy as np

from peftbench.audit.draws import draw_scores
from peftbench.audit.evidence import Evidence, System
from peftbench.audit.one_seed import compare_runs
from peftbench.tables.simultaneous import joint_confidence
from peftbench.tables.statistics import difference_interval
from peftbench.tables.table import Cell, Column, Pair, Row, RunPoint, Table

SCORE = "score"


def build_audit(evidence: Evidence, command: str) -> Table:
    """Return the table, the best system first.

    Args:
        evidence: what was read.
        command: what the user types to make the table.
    """
    unit = 100.0 if evidence.shares else 1.0
    draws = draw_scores(evidence)
    pairs = _pairs(draws, unit)
    names = sorted(evidence.systems, key=lambda name: -evidence.systems[name].scores.mean())
    known = {(pair.row, pair.other): pair for pair in [*pairs, *(pair.reversed() for pair in pairs)]}
    rows = []
    for name in names:
        cells = {SCORE: _score(evidence.systems[name], unit)}
        if pair := known.get((name, names[0])):
            differs = pair.low is not None and pair.high is not None and not pair.low <= 0 <= pair.high
            cells["difference"] = Cell(pair.value, None, cells[SCORE].n, pair.low, pair.high, differs)
        rows.append(Row(name, [], name == names[0], cells, _runs(evidence, name)))
    columns = [
        Column(SCORE, evidence.metric, "%" if evidence.shares else ""),
        Column("difference", "difference to the best", "points" if evidence.shares else "", interval=True),
    ]
    return Table(
        name="audit",
        title=f"Audit of {Path(evidence.source).name}",
        command=command,
        model="",
        task="",
        seeds=list(range(max(len(system.seeds) for system in evidence.systems.values()))),
        baseline=names[0],
        primary=SCORE,
        evaluation=Path(evidence.source).name,
        ceiling=None,
        examples=evidence.examples,
        columns=columns,
        all_columns=columns,
        rows=rows,
        claims=[],
        pairs=pairs,
        conclusion="",
        reading=_reading(evidence),
        notes=evidence.notes,
        environment={},
    )


def _pairs(draws: dict[str, np.ndarray], unit: float) -> list[Pair]:
    if all(of_system.shape[1] == 1 for of_system in draws.values()):
        return compare_runs(draws, unit)
    # a system of one run beside others of several: as if its seed were all there are, which the notes say
    rows = {name: of if of.shape[1] > 1 else np.repeat(of, 2, axis=1) for name, of in draws.items()}
    compared = list(combinations(rows, 2))
    confidence = joint_confidence(compared, rows)
    intervals = [difference_interval(rows[one], rows[other], confidence).scaled(unit) for one, other in compared]
    return [Pair(one, other, *interval) for (one, other), interval in zip(compared, intervals, strict=True)]


def _score(system: System, unit: float) -> Cell:
    scores = unit * system.scores
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else None
    return Cell(float(scores.mean()), sd, len(scores))


def _runs(evidence: Evidence, name: str) -> list[RunPoint]:
    system = evidence.systems[name]
    return [
        RunPoint(
            f"{name}, seed {seed}", number, "", "finished", used=True, metrics={evidence.source: {SCORE: float(score)}}
        )
        for number, (seed, score) in enumerate(zip(system.seeds, system.scores, strict=True))
    ]


def _reading(evidence: Evidence) -> list[str]:
    """Say how to read the figures, and what cannot be known."""
    systems = len(evidence.systems)
    lines = [
        "mean ± standard deviation over the seeds",
        f"bold: differs from the best; intervals: 95 % for all {systems * (systems - 1) // 2} pairs together"
        " (docs/statistics.md)",
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
        whose = "every system" if len(single) == systems else some
        lines.append(
            f"one run alone of {whose}: differences hold for these runs, on other examples of the kind. Whether they"
            " hold for another seed, and what more seeds would tell, cannot be known from one"
        )
    return lines

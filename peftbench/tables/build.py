"""From a spec and the runs found to the table: figures with their uncertainty, verdicts and notes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from peftbench.files import plain
from peftbench.tables import notes
from peftbench.tables.cells import (
    compared_cells,
    decided_cells,
    full_step_times,
    record_cells,
    score_cells,
    uncompared_cells,
    with_other_figures,
)
from peftbench.tables.claims import judge_claim
from peftbench.tables.collect import RunState
from peftbench.tables.columns import columns_of
from peftbench.tables.conclusion import conclude
from peftbench.tables.evidence import Evidence, read_evidence
from peftbench.tables.looks import follow_scores
from peftbench.tables.pairs import Comparison, comparable, compare, compare_pairs, join_table
from peftbench.tables.ranking import with_p_best, with_ranking
from peftbench.tables.scored import RowScores, score_rows
from peftbench.tables.sequential import Course
from peftbench.tables.simultaneous import Joint
from peftbench.tables.spec import TableSpec
from peftbench.tables.table import Cell, Column, Pair, Row, RunPoint, Table

ALPHA = 0.05


def build_table(spec: TableSpec, found: Sequence[RunState], command: str) -> Table:
    """Make the table as it stands; rows without a finished run have no figures.

    Args:
        spec: what is asked for.
        found: every run of every row, from `collect`.
        command: what the user types to make the table.
    """
    labels = [row.label for row in spec.rows]
    config = found[0].planned.config
    prepared = [run for run in found if run.planned.label not in labels]
    shown, evidence = read_evidence([run for run in found if run.planned.label in labels])
    found = [*shown, *prepared]
    other_setting = _other_setting(spec, config)
    if other_setting:
        spec = replace(spec, rows=[replace(row, lab={}, published={}) for row in spec.rows])
    runs = {label: [run for run in shown if run.planned.label == label] for label in labels}
    used = {label: [run for run in of_row if run.used] for label, of_row in runs.items()}
    scored = score_rows(shown, evidence)
    primary = str(config["task"]["metrics"][0])
    metrics = list(config["task"]["metrics"])
    spec = spec.for_metrics(metrics)
    comparisons = comparable(_comparisons(spec, metrics), scored)
    failed = {run.planned.label for run in shown if run.failed}
    course = None if spec.most_seeds is None else follow_scores(spec, scored, primary, failed=failed)
    if course:  # all that is judged is judged at looks: a table may be seen between them
        scored = {label: row.first(course.looked.get(label), *metrics) for label, row in scored.items()}
        used = {label: of_row[: course.looked.get(label)] for label, of_row in used.items()}
    claims = spec.claims if course is None or course.looks_done else []
    joint = join_table(comparisons, scored, course.alpha if course else ALPHA)
    full_ms = full_step_times(found)
    rows = []
    for row in spec.rows:
        cells, against = {}, None
        if row.label in scored:
            cells = record_cells(used[row.label], full_ms)
            cells |= score_cells(used[row.label], scored[row.label], joint)
            if row.label != spec.baseline and spec.baseline in scored:
                cells, against = _against_baseline(cells, row.label, spec, scored, primary, joint, course)
        cells = with_other_figures(cells, row, spec.tolerance)
        in_figures = {run.key for run in used.get(row.label, [])}
        listed = [run for run in runs[row.label] if not run.used or run.key in in_figures]
        points = [run_point(run, evidence.get(run.key)) for run in listed]
        rows.append(Row(row.label, row.overrides, row.label == spec.baseline, cells, points, against=against))
    evaluation = replace(spec.evaluation, split=shown[0].planned.evaluation.split)
    columns = columns_of(max((row.classes or 0 for row in scored.values()), default=0))
    ceiling = _ceiling(config["task"], columns[primary])
    pairs = course.pairs if course else compare_pairs(scored, primary, spec.delta, ALPHA)
    rows = with_ranking(rows, scored, primary, pairs)
    return Table(
        name=spec.name,
        title=spec.title,
        command=command,
        model=config["model"]["name"],
        task=config["task"]["name"],
        seeds=spec.seeds[: max((course.looked or course.seeds).values(), default=0)] if course else spec.seeds,
        baseline=spec.baseline,
        primary=primary,
        evaluation=str(evaluation),
        ceiling=ceiling,
        examples=next((len(row.labels) for row in scored.values()), None),
        columns=[columns[key] for key in with_p_best(spec.columns, rows)],
        all_columns=[column for key, column in columns.items() if any(key in row.cells for row in rows)],
        rows=rows,
        claims=[judge_claim(claim, rows, scored, joint, spec.delta) for claim in claims],
        pairs=pairs,
        conclusion=conclude(rows, pairs, columns[primary], spec.delta, notes.why_uncompared(course)),
        reading=[
            *notes.split_shown(evaluation, spec.evaluation),
            *notes.reading(spec, len(comparisons), pairs, rows),
            *notes.on_added_seeds(course),
            *notes.human_ceiling(ceiling, columns[primary]),
        ],
        notes=[*notes.missing_runs(found, command), *notes.mixed_conditions(shown), *other_setting],
        environment=notes.environment(found),
        delta=spec.delta,
    )


def _against_baseline(
    cells: dict[str, Cell],
    label: str,
    spec: TableSpec,
    scored: Mapping[str, RowScores],
    primary: str,
    joint: Joint,
    course: Course | None,
) -> tuple[dict[str, Cell], Pair | None]:
    """Return a row's cells with how far it is from the baseline, and that difference with its verdict."""
    cells = compared_cells(cells, scored[label], scored[spec.baseline], primary, joint)
    if course:
        decided = _decided_pair(course, label, spec.baseline)
        return decided_cells(cells, decided, primary) if decided else uncompared_cells(cells), decided
    return cells, compare(label, spec.baseline, primary, scored, joint, spec.delta)


def _decided_pair(course: Course, row: str, baseline: str) -> Pair | None:
    """Return the difference of a row to the baseline as it stood when it was decided, or was seen last."""
    pairs = [*course.pairs, *(pair.reversed() for pair in course.pairs)]
    return next((pair for pair in pairs if (pair.row, pair.other) == (row, baseline)), None)


def _ceiling(task: Mapping[str, Any], primary: Column) -> float | None:
    ceiling = (task.get("ceiling") or {}).get(primary.key)
    return None if ceiling is None else ceiling * (100 if primary.unit == "%" else 1)


def _comparisons(spec: TableSpec, metrics: Sequence[str]) -> list[Comparison]:
    """Return the differences that the table judges: each score of a row to the baseline's, each step of a claim."""
    rows = [row.label for row in spec.rows if row.label != spec.baseline]
    return [
        *((label, spec.baseline, metric) for label in rows for metric in metrics),
        *(
            (upper, lower, claim.column)
            for claim in spec.claims
            if claim.column in metrics
            for lower, upper in pairwise(claim.ascending)
        ),
    ]


def _other_setting(spec: TableSpec, config: Mapping) -> list[str]:
    """Say where figures and claims of the spec are of another model or task, so that figures are left out."""
    base = dict(line.split("=", 1) for line in spec.base if "=" in line)
    setting = {key: base[key] for key in ("model", "task") if key in base}
    same = all(config[key]["name"] == name for key, name in setting.items())
    if same or not (spec.claims or any(row.lab or row.published for row in spec.rows)):
        return []
    quoted = f"of the lab and the literature are of {' on '.join(setting.values())}"
    here = f"judged here on {config['model']['name']} and {config['task']['name']}"
    return [f"figures and claims {quoted}: figures are left out, claims {here}"]


def _from_here(config: Any) -> Any:
    """Return a config whose paths below the current folder begin there: a table is read on other machines."""
    if isinstance(config, dict):
        return {key: _from_here(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_from_here(value) for value in config]
    return config.removeprefix(f"{Path.cwd()}/") if isinstance(config, str) else config


def run_point(run: RunState, evidence: Evidence | None = None) -> RunPoint:
    """Return what a table says of a run, with its training curve where there is evidence."""
    return RunPoint(
        id=run.record.folder.name,
        seed=run.planned.seed,
        folder=str(run.record.folder),
        status=run.status,
        reason=run.reason,
        used=run.used,
        command=run.planned.command,
        config=_from_here(plain(run.planned.config)),
        history=evidence.history if evidence else [],
        metrics=plain(run.result.metrics if run.result else {}),
    )

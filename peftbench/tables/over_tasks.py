"""One table over several tasks: a column a task, and each row's mean over them, by which rows are compared.

The tasks are those asked for, not a sample of others, so a mean is as uncertain as its parts: by examples and by seeds.
A task's examples have nothing to do with another's, so each task takes the draws of the bootstrap in an order of its
own. Runs of one seed on all tasks count as one, whose score is the mean of theirs; what then holds of scores and
their differences is what holds in any table (`statistics.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np

from peftbench.tables import notes
from peftbench.tables.build import run_point
from peftbench.tables.cells import record_cells
from peftbench.tables.collect import RunState
from peftbench.tables.columns import COLUMNS, EXACT, PERCENT, POINTS
from peftbench.tables.conclusion import conclude
from peftbench.tables.evidence import read_evidence
from peftbench.tables.pairs import compare_draws
from peftbench.tables.pooling import pool_rows
from peftbench.tables.ranking import ranked_rows
from peftbench.tables.scored import least_score, score_rows
from peftbench.tables.simultaneous import Joint, join_comparisons
from peftbench.tables.spec import TableSpec
from peftbench.tables.statistics import difference_interval, score_interval
from peftbench.tables.table import Cell, Column, Pair, Row, Table

MEAN = "mean"
# what does not depend on the task: a latency is that of sequences of stated lengths
_COSTS = ("share", "latency", "latency_merged")


@dataclass(frozen=True)
class _Task:
    """What the runs of one task came to.

    Attributes:
        name, metric: of the task. least: what its score can be at least, in points, as draws are.
        key: of its column and cells, for a task may be called as another column is.
        evaluation: what scores are of. examples: how many. found: its runs, checked.
        seeds: by label, of the row's used runs. draws: (1 + draws, seeds) by label.
        ceiling: what human raters score, None where that is not known.
    """

    name: str
    key: str
    metric: str
    least: float
    evaluation: str
    examples: int
    found: list[RunState]
    seeds: Mapping[str, Sequence[int]]
    draws: Mapping[str, np.ndarray]
    ceiling: float | None


def build_over_tasks(of_tasks: Sequence[tuple[TableSpec, Sequence[RunState]]], command: str) -> Table:
    """Make the table as it stands; a row that lacks a task has no mean.

    Args:
        of_tasks: what is asked for and every run of it, from `collect`: of each task the same rows.
        command: what the user types to make the table.
    """
    spec = of_tasks[0][0]
    tasks = [_read(number, spec, found) for number, (spec, found) in enumerate(of_tasks)]
    shown = [run for task in tasks for run in task.found]
    draws = {(label, task.key): drawn for task in tasks for label, drawn in task.draws.items()}
    means = _means(tasks)
    draws |= {(label, MEAN): drawn for label, drawn in means.items()}
    least = {task.key: task.least for task in tasks}
    least[MEAN] = sum(least.values()) / len(least)
    several = {key: drawn for key, drawn in draws.items() if drawn.shape[1] > 1}
    compared = [
        ((label, of), (spec.baseline, of))
        for label, of in several
        if label != spec.baseline and (spec.baseline, of) in several
    ]
    joint = join_comparisons(compared, several, kind=lambda key: key[1])
    pool, widest = joint.pool(MEAN), POINTS - least[MEAN]
    total = sum(task.examples for task in tasks)
    against = {
        label: compare_draws(label, spec.baseline, means, joint.confidence, pool, spec.delta, total, widest)
        for (label, of), _ in compared
        if of == MEAN
    }
    rows = []
    for row in spec.rows:
        cells = _recorded(row.label, tasks)
        for of in least:
            if (row.label, of) in draws:
                cells[of] = _cell(draws, (row.label, of), spec.baseline, joint, least[of])
        if pair := against.get(row.label):
            cells["difference"] = Cell(pair.value, None, cells[MEAN].n, pair.low, pair.high, cells[MEAN].differs)
        elif row.label != spec.baseline and row.label in means and spec.baseline in means:  # of one seed
            value = float(means[row.label][0].mean() - means[spec.baseline][0].mean())
            cells["difference"] = Cell(value, None, 1)
        runs = [run_point(run) for run in shown if run.planned.label == row.label]
        rows.append(Row(row.label, row.overrides, row.label == spec.baseline, cells, runs, "", against.get(row.label)))
    ranked = {label: drawn for label, drawn in means.items() if drawn.shape[1] > 1}
    pairs = _pairs(ranked, spec.delta, total, widest)
    if len(ranked) > 1:
        rows = ranked_rows(rows, ranked, pairs, pool_rows(ranked.values()))
    mean, of_each = _columns(tasks)
    costs = [COLUMNS[key] for key in _COSTS if key in spec.columns and any(key in row.cells for row in rows)]
    measures = [mean, *([COLUMNS["p_best"]] if len(ranked) > 1 else []), COLUMNS["difference"], *of_each]
    model = shown[0].planned.config["model"]["name"]
    return Table(
        name=spec.name,
        title=spec.title,
        command=command,
        model=model,
        task=", ".join(task.name for task in tasks),
        seeds=spec.seeds,
        baseline=spec.baseline,
        primary=MEAN,
        evaluation=" and ".join(dict.fromkeys(task.evaluation for task in tasks)),
        ceiling=None,
        examples=total or None,
        columns=[*costs, *measures],
        all_columns=[*costs, COLUMNS["trained"], *measures],
        rows=rows,
        claims=[],
        pairs=pairs,
        conclusion=conclude(rows, pairs, mean, spec.delta, notes.why_uncompared(None)),
        reading=_reading(spec, rows, tasks, mean, len(compared), pairs),
        notes=[
            *(f"{task.name}: {note}" for task in tasks for note in notes.missing_runs(task.found, command)),
            *_fewer_seeds(tasks, means),
            *notes.mixed_conditions(shown),
        ],
        environment=notes.environment(shown),
        delta=spec.delta,
    )


def _read(number: int, spec: TableSpec, found: Sequence[RunState]) -> _Task:
    labels = [row.label for row in spec.rows]
    shown, evidence = read_evidence([run for run in found if run.planned.label in labels])
    task = shown[0].planned.config["task"]
    metric = str(task["metrics"][0])
    scored = score_rows(shown, evidence)
    drawn = {label: POINTS * row.draws(metric) for label, row in scored.items()}
    examples = next((len(row.labels) for row in scored.values()), 0)
    ceiling = (task.get("ceiling") or {}).get(metric)
    return _Task(
        name=task["name"],
        key=f"task.{task['name']}",
        metric=metric,
        least=POINTS * least_score(metric),
        evaluation=str(replace(spec.evaluation, split=shown[0].planned.evaluation.split)),
        examples=examples,
        found=shown,
        seeds={label: row.seeds for label, row in scored.items()},
        draws={label: reordered(of_row, number) for label, of_row in drawn.items()},
        ceiling=None if ceiling is None else POINTS * ceiling,
    )


def reordered(draws: np.ndarray, number: int) -> np.ndarray:
    """Return draws, (1 + draws, seeds), in the order of task `number`, the sample itself first; all its rows alike."""
    order = 1 + np.random.default_rng(number).permutation(len(draws) - 1)
    return np.concatenate([draws[:1], draws[order]])


def _means(tasks: Sequence[_Task]) -> dict[str, np.ndarray]:
    """Return the means over all tasks, (1 + draws, seeds) by label, of the rows and seeds that all tasks have."""
    means = {}
    for label in tasks[0].draws:
        if all(label in task.draws for task in tasks):
            common = reduce(set.intersection, (set(task.seeds[label]) for task in tasks))
            if common:
                columns = [[list(task.seeds[label]).index(seed) for seed in sorted(common)] for task in tasks]
                of_row = [task.draws[label][:, chosen] for task, chosen in zip(tasks, columns, strict=True)]
                means[label] = np.mean(of_row, axis=0)
    return means


def _fewer_seeds(tasks: Sequence[_Task], means: Mapping[str, np.ndarray]) -> list[str]:
    """Name the rows whose mean is of fewer seeds than some task has of them."""
    return [
        f"{label}: its mean is of {drawn.shape[1]} seed{'s' if drawn.shape[1] > 1 else ''}, those that all tasks have"
        for label, drawn in means.items()
        if any(len(task.seeds[label]) > drawn.shape[1] for task in tasks)
    ]


def _cell(
    draws: Mapping[tuple[str, str], np.ndarray], key: tuple[str, str], baseline: str, joint: Joint, least: float
) -> Cell:
    label, of = key
    scores = draws[key][0]
    interval = score_interval(draws[key], joint.confidence, joint.pool(of)).within(least, POINTS)
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else None
    differs = None
    if label != baseline and (baseline, of) in draws:
        difference = difference_interval(draws[key], draws[baseline, of], joint.confidence, joint.pool(of))
        differs = None if difference.low is None else difference.excludes(0)
    return Cell(interval.estimate, sd, len(scores), interval.low, interval.high, differs)


def _pairs(ranked: Mapping[str, np.ndarray], delta: float, examples: int, widest: float) -> list[Pair]:
    compared = list(combinations(ranked, 2))
    if not compared:
        return []
    joint = join_comparisons(compared, ranked)
    confidence, pool = joint.confidence, joint.pool(None)
    return [compare_draws(row, other, ranked, confidence, pool, delta, examples, widest) for row, other in compared]


def _recorded(label: str, tasks: Sequence[_Task]) -> dict[str, Cell]:
    """Return what the row costs, each figure by the first task that has it: a head's outputs are not counted in it."""
    cells: dict[str, Cell] = {}
    for task in tasks:
        if label in task.draws:
            cells = record_cells([run for run in task.found if run.used and run.planned.label == label], {}) | cells
    return {key: cells[key] for key in (*EXACT, *_COSTS) if key in cells}


def _columns(tasks: Sequence[_Task]) -> tuple[Column, list[Column]]:
    """Return the column of the means and those of the tasks: all scores in hundredths, so that they have a mean."""
    units = {task.metric: "%" if task.metric in PERCENT else "× 100" for task in tasks}
    if len(units) == 1:
        ((metric, unit),) = units.items()
        return Column(MEAN, f"mean {COLUMNS[metric].title}", unit), [
            Column(task.key, task.name, unit) for task in tasks
        ]
    each = [Column(task.key, f"{task.name} {COLUMNS[task.metric].title}", units[task.metric]) for task in tasks]
    return Column(MEAN, "mean score", "× 100"), each


def _reading(
    spec: TableSpec, rows: Sequence[Row], tasks: Sequence[_Task], mean: Column, comparisons: int, pairs: Sequence[Pair]
) -> list[str]:
    examples = ", ".join(f"{task.name} {task.examples:,} ({task.evaluation})" for task in tasks)
    ceilings = [f"{task.name} {task.ceiling:.1f}" for task in tasks if task.ceiling is not None]
    lines = [
        f"{mean.title}: of each task's first metric (task.metrics), all tasks alike; they alone are meant, not tasks in"
        f" general; examples: {examples}",
        *notes.reading(spec, comparisons, pairs, rows),
    ]
    if ceilings:
        lines.append(f"human ceiling, one half of the raters against the other: {', '.join(ceilings)}")
    if spec.claims:
        lines.append("claims are judged in each task's own table")
    if any("latency" in row.cells for row in rows) and "latency" in spec.columns:
        lines.append("latency: of the runs of the first task that it was measured for")
    return lines

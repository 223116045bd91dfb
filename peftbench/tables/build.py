"""From a spec and the runs found to the table: figures with their uncertainty, verdicts and notes."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median, stdev
from typing import Any

from peftbench.files import plain
from peftbench.runs.result import Environment
from peftbench.tables.claims import judge, judge_claim
from peftbench.tables.collect import MISSING, OTHER_DATA, SPLIT, STALE, Found
from peftbench.tables.columns import COLUMNS, EXACT, MEASURED, PER_RUN, POINTS, SCORES, in_unit, measured
from peftbench.tables.conclusion import conclude
from peftbench.tables.scored import Scored
from peftbench.tables.spec import RowSpec, TableSpec
from peftbench.tables.statistics import Interval
from peftbench.tables.table import Cell, Row, RunPoint, Table

CONFIDENCE = 0.95

# settings of the trainer that change how long a step takes
_OF_A_STEP = ("batch_size", "accumulate", "precision", "compile")


def build_table(spec: TableSpec, found: Sequence[Found], command: str) -> Table:
    """Make the table as it stands; rows without a finished run have no figures.

    Args:
        spec: what is wanted.
        found: every run of every row, from `collect`.
        command: what the user types to make the table.
    """
    runs = {row.label: [run for run in found if run.wanted.label == row.label] for row in spec.rows}
    used = {label: [run for run in own if run.used] for label, own in runs.items()}
    scored = {label: Scored(own) for label, own in used.items() if own}
    primary = _primary(found)
    left_out = [] if _is_of_this_setting(spec, found) else _left_out(spec)
    if left_out:
        spec = replace(spec, rows=[replace(row, lab={}, published={}) for row in spec.rows], claims=[])
    compared = _comparisons(spec, list(scored), found)
    confidence = 1 - (1 - CONFIDENCE) / max(1, compared)
    first = found[0].wanted.config
    full_ms = _full_steps(found)
    rows = []
    for row in spec.rows:
        cells = _cells(used[row.label], full_ms)
        if row.label in scored:
            cells |= _score_cells(used[row.label], scored[row.label], confidence)
            if row.label != spec.baseline and spec.baseline in scored:
                cells = _compared(cells, scored[row.label], scored[spec.baseline], primary, confidence)
        cells = _with_figures(cells, row, spec)
        rows.append(Row(row.label, row.overrides, row.label == spec.baseline, cells, _points(runs[row.label])))
    columns = dict(COLUMNS)
    if any((one.classes or 0) > 2 for one in scored.values()):
        columns["f1"] = replace(columns["f1"], title=columns["macro_f1"].title)
    examples = {len(one.labels) for one in scored.values()}
    return Table(
        name=spec.name,
        title=spec.title,
        command=command,
        model=first["model"]["name"],
        task=first["task"]["name"],
        seeds=spec.seeds,
        baseline=spec.baseline,
        primary=primary,
        examples=examples.pop() if examples else None,
        columns=[columns[key] for key in spec.columns],
        all_columns=[columns[key] for key in columns if any(key in row.cells for row in rows)],
        rows=rows,
        claims=[judge_claim(claim, rows, scored, confidence) for claim in spec.claims],
        conclusion=conclude(rows, scored, primary),
        reading=_reading(spec, compared),
        notes=[*_notes(found, command), *left_out],
        environment=_environment(found),
    )


def _comparisons(spec: TableSpec, scored: Sequence[str], found: Sequence[Found]) -> int:
    """Return how many differences the table tells of: each score of a row to the baseline's, each step of a claim."""
    metrics = [metric for metric in found[0].wanted.config["task"]["metrics"] if metric in SCORES]
    to_baseline = (len(scored) - 1) * len(metrics) if spec.baseline in scored else 0
    return to_baseline + sum(len(claim.ascending) - 1 for claim in spec.claims if claim.column in SCORES)


def _primary(found: Sequence[Found]) -> str:
    return str(found[0].wanted.config["task"]["metrics"][0])


def _setting(spec: TableSpec) -> dict[str, str]:
    """Return the model and the task that the figures and claims of the spec are of, where it names them."""
    base = dict(line.split("=", 1) for line in spec.base if "=" in line)
    return {key: base[key] for key in ("model", "task") if key in base}


def _is_of_this_setting(spec: TableSpec, found: Sequence[Found]) -> bool:
    """Tell whether the runs are of the model and the task that the figures and claims of the spec are of."""
    config = found[0].wanted.config
    return all(config[key]["name"] == name for key, name in _setting(spec).items())


def _full_steps(found: Sequence[Found]) -> dict[Hashable, float]:
    """Return by their conditions how long a step of full fine-tuning takes, in milliseconds: the median of the rows."""
    times: dict[Hashable, list[float]] = {}
    for run in found:
        if run.used and run.result and (section := run.result.training_step.result):
            times.setdefault(_conditions(run), []).append(section["full_ms"])
    return {conditions: median(own) for conditions, own in times.items()}


def _conditions(run: Found) -> Hashable:
    """Return what the time of a step of full fine-tuning depends on: rates and epochs are each method's own."""
    config, environment = run.wanted.config, run.result and run.result.environment
    lasting = [config["model"], config["task"], *(config["trainer"].get(key) for key in _OF_A_STEP)]
    return str(lasting), environment and environment.device, environment and environment.threads


def _cells(used: Sequence[Found], full_ms: Mapping[Hashable, float]) -> dict[str, Cell]:
    """Return the figures that stand in the records."""
    cells: dict[str, Cell] = {}
    if not used:
        return cells
    results = [run.result for run in used if run.result]
    for key, read in PER_RUN.items():
        values = [value for result in results if (value := read(result)) is not None]
        if not values:
            continue
        sd = stdev(values) if max(values) > min(values) else None
        ends = (min(values), max(values)) if key in EXACT or len(values) > 1 else (None, None)
        cells[key] = Cell(fmean(values), sd, len(values), *ends)
    for key in MEASURED:
        figures = [
            figure
            for run in used
            if run.result and (figure := measured(key, run.result, full_ms.get(_conditions(run))))
        ]
        if figures:
            value, low, high = figures[0]
            cells[key] = Cell(value, None, 1, low, high)
    return cells


def _score_cells(used: Sequence[Found], scored: Scored, confidence: float) -> dict[str, Cell]:
    cells = {}
    for metric in used[0].wanted.config["task"]["metrics"]:
        values = [score for run in used if run.result and (score := run.result.metrics[SPLIT][metric]) is not None]
        sd = stdev(values) if len(values) > 1 else None
        interval = scored.score(metric, confidence)
        shown = None if sd is None else in_unit(metric, sd)
        cells[metric] = Cell(in_unit(metric, fmean(values)), shown, len(values), interval.low, interval.high)
        if "spread" not in cells and sd is not None:
            cells["spread"] = Cell(POINTS * sd, None, len(values))
    return cells


def _compared(
    cells: dict[str, Cell], ours: Scored, baseline: Scored, primary: str, confidence: float
) -> dict[str, Cell]:
    """Add what is told by comparing with the baseline."""
    told = dict(cells)
    common = len(set(ours.seeds) & set(baseline.seeds))
    for metric in set(cells) & set(SCORES):
        difference = ours.difference(metric, baseline, confidence)
        if difference is not None:
            told[metric] = replace(cells[metric], differs=_differs(difference, 0))
            if metric == primary:
                told["difference"] = _of(difference, common, 0)
    kept = ours.kept(primary, baseline, confidence)
    if kept is not None:
        told["kept"] = _of(kept, common, 100)
    return told


def _of(interval: Interval, seeds: int, same: float) -> Cell:
    return Cell(interval.estimate, None, seeds, interval.low, interval.high, _differs(interval, same))


def _differs(interval: Interval, same: float) -> bool | None:
    return None if interval.low is None else interval.excludes(same)


def _with_figures(cells: dict[str, Cell], row: RowSpec, spec: TableSpec) -> dict[str, Cell]:
    """Put the lab's and the literature's figures beside the measured ones, with a verdict on the lab's."""
    told = dict(cells)
    for key, lab in row.lab.items():
        cell = told.get(key, Cell())
        tolerance = spec.tolerance.get(key, 0.0)
        verdict = None
        if cell.value is not None:
            verdict = judge(cell.low, cell.high, lab - tolerance, lab + tolerance)
        told[key] = replace(cell, lab=lab, verdict=verdict)
    for key, published in row.published.items():
        told[key] = replace(told.get(key, Cell()), published=published)
    return told


def _points(runs: Sequence[Found]) -> list[RunPoint]:
    return [
        RunPoint(
            id=run.record.folder.name,
            seed=run.wanted.seed,
            folder=str(run.record.folder),
            status=run.status,
            reason=run.reason,
            used=run.used,
            command=run.wanted.command,
            config=plain(run.wanted.config),
            history=[row for row in run.record.history() if "validation" in row] if run.used else [],
            metrics=plain(run.result.metrics if run.result else {}),
        )
        for run in runs
    ]


def _reading(spec: TableSpec, compared: int) -> list[str]:
    """Say how to read the figures."""
    together = f" for all {compared} comparisons together" if compared > 1 else ""
    return [
        "mean ± standard deviation over the seeds",
        f"bold: differs from {spec.baseline} over the seeds that both have, 95 %{together}; intervals likewise, and"
        " none where there is one seed (examples by a paired bootstrap, seeds by Student's t: docs/statistics.md)",
    ]


def _left_out(spec: TableSpec) -> list[str]:
    """Say that the figures and claims of the spec are left out; nothing where it has none."""
    if not (spec.claims or any(row.lab or row.published for row in spec.rows)):
        return []
    setting = " on ".join(_setting(spec).values())
    return [f"figures and claims of the lab and the literature are of {setting}, and left out here"]


def _notes(found: Sequence[Found], command: str) -> list[str]:
    notes = []
    unused = Counter(run.status for run in found if not run.used)
    if unused.pop(STALE, 0):
        notes += _stale_notes([run for run in found if run.status == STALE], command)
    if missing := unused.pop(MISSING, 0):
        notes.append(f"{missing} of {len(found)} runs are missing: {command}")
        notes += sorted({f"{run.wanted.label}: {run.reason}" for run in found if run.status == MISSING and run.reason})
    for status in unused:
        notes += [
            f"{status}: {run.wanted.label}, seed {run.wanted.seed}{f': {run.reason}' if run.reason else ''}"
            for run in found
            if run.status == status
        ]
    if any(run.status == STALE and run.used for run in found):
        stale = sorted({run.wanted.label for run in found if run.status == STALE and run.used})
        notes.append(f"figures of {', '.join(stale)} are from runs of other code (stale=use)")
    return notes


def _stale_notes(stale: Sequence[Found], command: str) -> list[str]:
    by_reason: dict[str | None, list[Found]] = {}
    for run in stale:
        if not run.used:
            by_reason.setdefault(run.reason, []).append(run)
    use = ", stale=use takes them as they are"
    return [
        f"stale and left out, {reason}: {', '.join(run.wanted.folder.name for run in runs)};"
        f" {command} stale=rerun trains them again{'' if reason == OTHER_DATA else use}"
        for reason, runs in by_reason.items()
    ]


def _environment(found: Sequence[Found]) -> dict[str, list[str]]:
    facts: dict[str, set[str]] = {}
    for run in found:
        if run.used:
            for name, value in _facts(run.result.environment if run.result else None).items():
                facts.setdefault(name, set()).add(str(value))
    return {name: sorted(values) for name, values in facts.items()}


def _facts(environment: Environment | None) -> dict[str, Any]:
    if environment is None:
        return {}
    facts = {"device": environment.device, "threads": environment.threads, "precision": environment.precision}
    return {**environment.versions, **facts, **({"git_commit": c} if (c := environment.git_commit) else {})}

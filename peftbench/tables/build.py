"""From a spec and the runs found to the table: figures with their uncertainty, verdicts and notes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from peftbench.records.files import plain
from peftbench.tables import statistics
from peftbench.tables.claims import judge, judge_claim
from peftbench.tables.collect import MISSING, STALE, Found
from peftbench.tables.columns import COLUMNS, MEASURED, PER_RUN, SCORES, in_unit, measured, points
from peftbench.tables.spec import RowSpec, TableSpec
from peftbench.tables.statistics import Interval
from peftbench.tables.table import Cell, Row, RunPoint, Table

SPLIT = "validation"
CONFIDENCE = 0.95

# figures that depend on the model and the task: the lab's hold for its own alone
_ABSOLUTE = (*SCORES, "share", "trained", "train_time", "training", "memory")


class Scored:
    """What the used runs of one row said about the evaluation examples."""

    def __init__(self, runs: Sequence[Found]) -> None:
        predictions = {run.wanted.seed: run.record.read_predictions()[SPLIT] for run in runs}
        self.seeds = list(predictions)
        first = next(iter(predictions.values()))
        self.labels = np.asarray(first.labels)
        self.predictions = np.asarray([told.predictions for told in predictions.values()])
        self.classes = len(first.probabilities[0]) if first.probabilities else None

    def score(self, metric: str, confidence: float) -> Interval:
        """Return the score with its interval, in the column's unit."""
        interval = statistics.score_interval(metric, self.labels, self.predictions, confidence, self.classes)
        return Interval(*(in_unit(metric, value) for value in interval))

    def difference(self, metric: str, other: "Scored", confidence: float) -> Interval | None:
        """Return the difference to another row over the seeds that both have, in points."""
        ours, theirs = self._paired(other)
        if not len(ours):
            return None
        found = statistics.difference_interval(metric, self.labels, ours, theirs, confidence, self.classes)
        return Interval(*(points(metric) * value for value in found))

    def kept(self, metric: str, other: "Scored", confidence: float) -> Interval | None:
        """Return the score in percent of another row's, over the seeds that both have."""
        ours, theirs = self._paired(other)
        if not len(ours):
            return None
        found = statistics.ratio_interval(metric, self.labels, ours, theirs, confidence, self.classes)
        return found and Interval(*(100 * value for value in found))

    def _paired(self, other: "Scored") -> tuple[np.ndarray, np.ndarray]:
        common = [seed for seed in self.seeds if seed in other.seeds]
        ours = self.predictions[[self.seeds.index(seed) for seed in common]]
        return ours, other.predictions[[other.seeds.index(seed) for seed in common]]


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
    compared = max(1, len(scored) - (spec.baseline in scored))
    confidence = 1 - (1 - CONFIDENCE) / compared
    first = found[0].wanted.config
    of_lab = _setting(spec) == (first["model"]["name"], first["task"]["name"])
    rows = []
    for row in spec.rows:
        cells = _cells(used[row.label])
        if row.label in scored:
            cells |= _score_cells(used[row.label], scored[row.label], confidence)
            if row.label != spec.baseline and spec.baseline in scored:
                cells = _compared(cells, scored[row.label], scored[spec.baseline], primary, confidence)
        cells = _with_figures(cells, row, spec, of_lab)
        rows.append(Row(row.label, row.overrides, row.label == spec.baseline, cells, _points(runs[row.label])))
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
        columns=[COLUMNS[key] for key in spec.columns],
        all_columns=[COLUMNS[key] for key in COLUMNS if any(key in row.cells for row in rows)],
        rows=rows,
        claims=[judge_claim(claim, rows, scored) for claim in spec.claims],
        notes=_notes(spec, found, command, compared if spec.baseline in scored else 0),
        environment=_environment(found),
    )


def _primary(found: Sequence[Found]) -> str:
    return str(found[0].wanted.config["task"]["metrics"][0])


def _setting(spec: TableSpec) -> tuple[str | None, str | None]:
    """Return the model and the task that the lab's figures are of."""
    base = dict(line.split("=", 1) for line in spec.base if "=" in line)
    return base.get("model"), base.get("task")


def _cells(used: Sequence[Found]) -> dict[str, Cell]:
    """Return the figures that stand in the records."""
    cells: dict[str, Cell] = {}
    if not used:
        return cells
    for key, read in PER_RUN.items():
        values = [read(run.result) for run in used]
        varies = max(values) > min(values)
        cells[key] = Cell(fmean(values), stdev(values) if varies else None, len(values), min(values), max(values))
    for key in MEASURED:
        figures = [figure for run in used if (figure := measured(key, run.result))]
        if figures:
            value, low, high = figures[0]
            cells[key] = Cell(value, None, 1, low, high)
    return cells


def _score_cells(used: Sequence[Found], scored: Scored, confidence: float) -> dict[str, Cell]:
    cells = {}
    for metric in used[0].wanted.config["task"]["metrics"]:
        values = [in_unit(metric, run.result["metrics"][SPLIT][metric]) for run in used]
        sd = stdev(values) if len(values) > 1 else None
        interval = scored.score(metric, confidence)
        cells[metric] = Cell(fmean(values), sd, len(values), interval.low, interval.high)
        if "spread" not in cells and sd is not None:
            cells["spread"] = Cell(sd, None, len(values))
    return cells


def _compared(
    cells: dict[str, Cell], ours: Scored, baseline: Scored, primary: str, confidence: float
) -> dict[str, Cell]:
    """Add what is told by comparing with the baseline."""
    told = dict(cells)
    for metric in set(cells) & set(SCORES):
        difference = ours.difference(metric, baseline, confidence)
        if difference is not None:
            told[metric] = replace(cells[metric], differs=_excludes(difference, 0))
            if metric == primary:
                told["difference"] = _of(difference, _excludes(difference, 0))
    kept = ours.kept(primary, baseline, confidence)
    if kept is not None:
        told["kept"] = _of(kept, _excludes(kept, 100))
    return told


def _of(interval: Interval, differs: bool) -> Cell:
    return Cell(interval.estimate, None, 0, interval.low, interval.high, differs)


def _excludes(interval: Interval, value: float) -> bool:
    return not interval.low <= value <= interval.high


def _with_figures(cells: dict[str, Cell], row: RowSpec, spec: TableSpec, of_lab: bool) -> dict[str, Cell]:
    """Put the lab's and the literature's figures beside the measured ones, with a verdict on the lab's."""
    told = dict(cells)
    for key, lab in row.lab.items():
        cell = told.get(key, Cell())
        tolerance = spec.tolerance.get(key, 0.0)
        verdict = None
        if cell.value is not None:
            comparable = of_lab or key not in _ABSOLUTE
            agreed = (lab - tolerance, lab + tolerance)
            verdict = judge(cell.low, cell.high, *agreed) if comparable else "not comparable"
        told[key] = replace(cell, lab=lab, verdict=verdict)
    for key, published in row.published.items():
        told[key] = replace(told.get(key, Cell()), published=published)
    return told


def _points(runs: Sequence[Found]) -> list[RunPoint]:
    return [
        RunPoint(
            id=run.wanted.folder.name,
            seed=run.wanted.seed,
            folder=str(run.wanted.folder),
            status=run.status,
            reason=run.reason,
            used=run.used,
            command=run.wanted.command,
            config=plain(run.wanted.config),
            history=[row for row in run.record.history() if "validation" in row] if run.used else [],
            metrics=plain(run.result.get("metrics", {})),
        )
        for run in runs
    ]


def _notes(spec: TableSpec, found: Sequence[Found], command: str, compared: int) -> list[str]:
    notes = ["mean ± standard deviation over the seeds"]
    if compared:
        together = f" for all {compared} comparisons together" if compared > 1 else ""
        notes.append(
            f"bold: differs from {spec.baseline} by a paired bootstrap over seeds and examples, 95 %{together};"
            " intervals likewise"
        )
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
    return [
        f"stale and left out, {reason}: {', '.join(run.wanted.folder.name for run in runs)};"
        f" {command} stale=rerun trains them again, stale=use takes them as they are"
        for reason, runs in by_reason.items()
    ]


def _environment(found: Sequence[Found]) -> dict[str, list[str]]:
    facts: dict[str, set[str]] = {}
    for run in found:
        if run.used:
            for name, value in _facts(run.result).items():
                facts.setdefault(name, set()).add(str(value))
    return {name: sorted(values) for name, values in facts.items()}


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: result[key] for key in ("device", "threads", "dtype", "git_commit") if result.get(key)}
    return {**result.get("versions", {}), **kept}

"""The figures of a row: from the records of its runs, beside the baseline's, the lab's and the literature's."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, mean, median, stdev

from peftbench.tables.claims import judge
from peftbench.tables.collect import RunState
from peftbench.tables.columns import EXACT, MEASURED, PER_RUN, POINTS, SCORES, in_unit, measured
from peftbench.tables.scored import RowScores
from peftbench.tables.simultaneous import Joint
from peftbench.tables.spec import RowSpec
from peftbench.tables.statistics import Interval
from peftbench.tables.table import Cell, Pair

# settings of the trainer that change how long a step takes
_STEP_SETTINGS = ("batch_size", "accumulate", "precision", "compile")


def full_step_times(found: Sequence[RunState]) -> dict[Hashable, float]:
    """Return by their conditions how long a step of full fine-tuning takes, in milliseconds: the median of the rows."""
    times: dict[Hashable, list[float]] = {}
    for run in found:
        if run.used and run.result and (section := run.result.training_step.result):
            times.setdefault(_step_conditions(run), []).append(section["full_ms"])
    return {conditions: median(measured_ms) for conditions, measured_ms in times.items()}


def _step_conditions(run: RunState) -> Hashable:
    """Return what the time of a step of full fine-tuning depends on: rates and epochs are each method's own."""
    config, environment = run.planned.config, run.result and run.result.environment
    settings = [config["model"], config["task"], *(config["trainer"].get(key) for key in _STEP_SETTINGS)]
    return str(settings), environment and environment.device, environment and environment.threads


def record_cells(used: Sequence[RunState], full_ms: Mapping[Hashable, float]) -> dict[str, Cell]:
    """Return the figures that stand in the records; `full_ms` from `full_step_times`."""
    cells: dict[str, Cell] = {}
    results = [run.result for run in used if run.result]
    for key, read in PER_RUN.items():
        values = [value for result in results if (value := read(result)) is not None]
        if not values:
            continue
        sd = stdev(values) if max(values) > min(values) else None
        ends = (min(values), max(values)) if key in EXACT or len(values) > 1 else (None, None)
        # the exact mean: `fmean` of equal figures can lie beside all of them
        cells[key] = Cell(float(mean(values)), sd, len(values), *ends)
    for key in MEASURED:
        figures = [
            figure
            for run in used
            if run.result
            and (
                figure := measured(
                    key, run.result, full_ms.get(_step_conditions(run)), run.planned.evaluation.of(run.result)
                )
            )
        ]
        if figures:
            value, low, high = figures[0]
            cells[key] = Cell(value, None, 1, low, high)
    return cells


def score_cells(
    used: Sequence[RunState], scored: RowScores, joint: Joint, metrics: Sequence[str] | None = None
) -> dict[str, Cell]:
    """Return the scores with their intervals, and how far they are spread over the seeds; by default of all metrics."""
    cells = {}
    for metric in metrics or used[0].planned.config["task"]["metrics"]:
        values = [
            score
            for run in used
            if run.result
            and (evaluation := run.planned.evaluation.of(run.result))
            and (score := evaluation.metrics[metric]) is not None
        ]
        sd = stdev(values) if len(values) > 1 else None
        interval = scored.score(metric, joint)
        shown = None if sd is None else in_unit(metric, sd)
        cells[metric] = Cell(in_unit(metric, fmean(values)), shown, len(values), interval.low, interval.high)
        if "spread" not in cells and sd is not None:
            cells["spread"] = Cell(POINTS * sd, None, len(values))
    return cells


def compared_cells(
    cells: Mapping[str, Cell], scored: RowScores, baseline: RowScores, primary: str, joint: Joint
) -> dict[str, Cell]:
    """Return the cells with what the comparison with the baseline adds: whether scores differ, and by how much."""
    compared = dict(cells)
    fewest = min(len(scored.seeds), len(baseline.seeds))
    for metric in set(cells) & set(SCORES):
        difference = scored.difference(metric, baseline, joint)
        if difference is not None:
            compared[metric] = replace(cells[metric], differs=_excludes(difference, 0))
            if metric == primary:
                compared["difference"] = _interval_cell(difference, fewest, 0)
    kept = scored.kept(primary, baseline, joint) if primary in cells else None
    if kept is not None:
        compared["kept"] = _interval_cell(kept, fewest, 100)
    return compared


def decided_cells(cells: Mapping[str, Cell], against: Pair, primary: str) -> dict[str, Cell]:
    """Return the cells with the difference to the baseline as it was decided, when it was."""
    decided = dict(cells)
    if "difference" in decided:
        difference = Interval(against.value, against.low, against.high)
        decided["difference"] = _interval_cell(difference, decided["difference"].n, 0)
        decided[primary] = replace(decided[primary], differs=_excludes(difference, 0))
    return decided


def uncompared_cells(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Return the cells of a row that no look has compared with the baseline: how far it is off, without an interval."""
    plain = {key: replace(cell, differs=None) for key, cell in cells.items()}
    return plain | {key: replace(plain[key], low=None, high=None) for key in ("difference", "kept") if key in plain}


def _interval_cell(interval: Interval, seeds: int, same: float) -> Cell:
    return Cell(interval.estimate, None, seeds, interval.low, interval.high, _excludes(interval, same))


def _excludes(interval: Interval, value: float) -> bool | None:
    return None if interval.low is None else interval.excludes(value)


def with_other_figures(cells: Mapping[str, Cell], row: RowSpec, tolerance: Mapping[str, float]) -> dict[str, Cell]:
    """Put the lab's and the literature's figures beside the measured ones, with a verdict on the lab's."""
    judged = dict(cells)
    for key, lab in row.lab.items():
        cell = judged.get(key, Cell())
        margin = tolerance.get(key, 0.0)
        verdict = None if cell.value is None else judge(cell.low, cell.high, lab - margin, lab + margin)
        judged[key] = replace(cell, lab=lab, verdict=verdict)
    for key, published in row.published.items():
        judged[key] = replace(judged.get(key, Cell()), published=published)
    return judged

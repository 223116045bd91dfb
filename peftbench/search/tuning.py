"""Equal tuning for all rows of a table: each gets the same number of trials, and the best on validation is its own.

The trials of a row are drawn from the space that its method's file gives, `search`, less what the row sets itself. They
have a seed of their own: no score in the table is of a run that was chosen for its score.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.runs.pinned_config import possible_folders
from peftbench.runs.result import Status
from peftbench.search.request import lines_of
from peftbench.search.select import Trial, outcome, select
from peftbench.search.space import Point, Space, read_space, sample
from peftbench.sweeps.request import TableRequest, key_of, merge, read_line, read_request
from peftbench.tables.collect import STALE, PlannedRun, RunState, collect
from peftbench.tables.columns import in_unit
from peftbench.tables.expected_best import expected_best
from peftbench.tables.spec import RowSpec, TableSpec
from peftbench.tables.table import Tuned

# of the trials; a table's own seeds begin at 0
TUNING_SEED = 1000
_DONE = (Status.FINISHED, Status.FAILED, Status.OOM)


@dataclass(frozen=True)
class RowTrials:
    """The trials of a row: `points[i]` is what `planned[i]` sets beyond the row's own overrides."""

    row: RowSpec
    points: list[Point]
    planned: list[PlannedRun]


def plan_trials(argv: Sequence[str]) -> list[RowTrials]:
    """Draw the trials that `tuned=…` in a sweep's line wants of each row, the same ones every time; none without it.

    A row that is made of other rows' runs keeps its settings, and so does one whose method has nothing to tune.

    Raises UserError for a mistake in the line, where a method has no space, and where a row leaves nothing to draw.
    """
    read = read_line(argv)
    trials = read.settings["tuned"]
    if trials is None:
        return []
    if read.settings["explain_spread"]:
        raise UserError("tuned=… and explain_spread=true: ask for one at a time")
    if TUNING_SEED in read.spec.seeds:
        raise UserError(f"seed {TUNING_SEED} is that of the trials of tuned=…: choose other seeds")
    rows = []
    for row in read.spec.rows:
        lines = merge(read.spec.base, read.given, row.overrides)
        if not any("run(" in line for line in lines):
            try:
                rows += _row_trials(row, lines, read.found_in, trials)
            except UserError as error:
                raise UserError(f"row {row.label!r}: {error}") from error
    return rows


def _row_trials(row: RowSpec, lines: Sequence[str], found_in: Sequence[str], trials: int) -> list[RowTrials]:
    composed = compose([*found_in, *lines, f"seed={TUNING_SEED}"])
    experiment = f"{composed.experiment}-tuning"
    space = _space(composed, lines)
    if space is None:
        return []
    points = sample(space, trials, 0)
    planned = []
    for point in points:
        overrides = merge(lines, lines_of(point), [f"experiment={experiment}", f"seed={TUNING_SEED}"])
        config = copy.deepcopy(composed)  # which takes a tenth of the time of composing it
        for override in OverridesParser.create().parse_overrides([*lines_of(point), f"experiment={experiment}"]):
            OmegaConf.update(config, override.get_key_element(), override.value())
        pinned, folders = possible_folders(resolve(config))
        planned.append(PlannedRun(row.label, TUNING_SEED, overrides, pinned.plain(), folders[0], found_in, folders[1:]))
    return [RowTrials(row, points, planned)]


def _space(composed: DictConfig, lines: Sequence[str]) -> Space | None:
    """Return what is left to be drawn; None where the method's space is empty."""
    method: Any = OmegaConf.to_container(composed.method)
    sweeps = method.get("search")
    if not isinstance(sweeps, Mapping):
        raise UserError(
            f"method={method['name']} has no space to be tuned in: give its file one, such as"
            " search: {trainer.lr: 'tag(log,interval(1e-4,1e-2))'}"
        )
    if not sweeps:
        return None
    given = {key_of(line) for line in lines}
    left = [f"{key}={values}" for key, values in sweeps.items() if key not in given]
    if not left:
        raise UserError(f"there is nothing to tune, all of its space is set already: {', '.join(map(str, sweeps))}")
    return read_space(left)


def check_current(trials: Sequence[RowTrials], stale: str) -> None:
    """Raise UserError where trials of other code would neither be used nor made again: before hours of others."""
    for row in trials if stale == "leave" else ():
        if number := sum(run.status == STALE for run in collect(row.planned)):
            raise UserError(
                f"row {row.row.label!r}: {number} of {len(row.planned)} trials are of other code or data: stale=rerun"
                " makes them again, stale=use takes those of other code as they are"
            )


def read_tuned(argv: Sequence[str], mistakes: Mapping[Path, str] | None = None) -> tuple[TableRequest, list[Tuned]]:
    """Return what a line asks for, the rows with their best trials' settings, and what tuning them came to.

    `mistakes` says, by its folder, why a trial could not be begun.

    Raises UserError as `read_request` does, and where a trial of a row is still to be made.
    """
    trials = plan_trials(argv)
    if not trials:
        return read_request(argv), []
    stale = read_line(argv).settings["stale"]
    check_current(trials, stale)
    use_stale = stale == "use"
    outcomes = [_outcomes(row, collect(row.planned, use_stale, mistakes)) for row in trials]
    best = {row.row.label: _settings(row, of_row) for row, of_row in zip(trials, outcomes, strict=True)}

    def adapt(spec: TableSpec) -> TableSpec:
        rows = [replace(row, overrides=[*row.overrides, *best.get(row.label, [])]) for row in spec.rows]
        return replace(spec, rows=rows)

    tuned = [_tuned(row, of_row, best[row.row.label]) for row, of_row in zip(trials, outcomes, strict=True)]
    return read_request(argv, adapt, tunes=True), tuned


def _outcomes(trials: RowTrials, found: Sequence[RunState]) -> list[Trial]:
    pairs = zip(trials.points, found, strict=True)
    return [outcome(number, point, run) for number, (point, run) in enumerate(pairs, start=1)]


def _settings(trials: RowTrials, outcomes: Sequence[Trial]) -> list[str]:
    """Return the overrides of the best trial; where all have failed those of the first, whose runs will say why."""
    lacking = [trial for trial in outcomes if trial.status not in _DONE and not trial.scores]
    if lacking:
        reason = next((f": {trial.reason}" for trial in lacking if trial.reason), "")
        raise UserError(
            f"row {trials.row.label!r} is not tuned yet, {len(lacking)} of {len(outcomes)} trials are lacking{reason};"
            " the sweep makes them"
        )
    best = select(outcomes, _primary(trials)) or outcomes[0]
    return lines_of(best.point)


def _tuned(trials: RowTrials, outcomes: Sequence[Trial], settings: list[str]) -> Tuned:
    metric = _primary(trials)
    scores = [in_unit(metric, score) for trial in outcomes if (score := trial.scores.get(metric)) is not None]
    failed = len(outcomes) - len(scores)
    counted = [*scores, *([min(scores)] * failed)] if scores else []  # as bad as the worst
    return Tuned(trials.row.label, settings, scores, failed, expected_best(counted))


def _primary(trials: RowTrials) -> str:
    return str(trials.planned[0].config["task"]["metrics"][0])

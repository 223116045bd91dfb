"""From the runs a table wants to what there is of them: finished, stale, failed or missing, and why."""

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peftbench.errors import UserError
from peftbench.runs.find import UNREADABLE, Run, find_runs, inspect_run
from peftbench.runs.origin import is_current
from peftbench.runs.record import Record
from peftbench.runs.result import Result, Status
from peftbench.runs.sources import part_folders, retrained_parts
from peftbench.tables.spec import EvaluationSpec

NOT_EVALUATED = "not evaluated"
MISSING, STALE = "missing", "stale"
RETRAINED = "made before adapters it is made of were trained again"
OTHER_DATA = "made from other data than the other runs"

# what a command line may say besides what a run learns
_NOT_LEARNED = ("experiment", "output_dir", "device", "threads", "force", "task.dir", "trainer.eval_batch_size")
_NOT_LEARNED_GROUPS = ("logger", "measure", "hydra")


@dataclass(frozen=True)
class PlannedRun:
    """A run that a row asks for: the overrides that make it, its composed config (plain) and its folder.

    `searchpath` are the overrides that say where else Hydra finds configs. `others` are the folders it may have
    instead: of a machine that trained it in another precision. `evaluation` is the one that is shown of it.
    """

    label: str
    seed: int
    overrides: list[str]
    config: Mapping[str, Any]
    folder: Path
    searchpath: Sequence[str] = ()
    others: Sequence[Path] = ()
    evaluation: EvaluationSpec = EvaluationSpec()

    @property
    def command(self) -> str:
        """The command that makes it."""
        return f"peftbench train {shlex.join([*self.searchpath, *self.overrides])}"

    @property
    def record_folder(self) -> Path:
        """Where its record is, or would be."""
        folders = (self.folder, *self.others)
        return next((folder for folder in folders if Record(folder).result_path.exists()), self.folder)


@dataclass(frozen=True)
class RunState:
    """What there is of a planned run.

    Attributes:
        status: of the record; `missing` where there is none, `stale` for a finished one of other code or data,
            `not evaluated` for one without the evaluation that is to be shown.
        reason: why it failed, or what makes it stale; for a missing one, why it could not be begun, or which other
            run is close.
        result: what its result.json holds, None where there is none.
        used: whether figures are made from it.
        refused: whether it could not be begun, for a mistake of the user's.
    """

    planned: PlannedRun
    status: str
    reason: str | None
    result: Result | None
    used: bool
    refused: bool = False

    @property
    def failed(self) -> bool:
        """Whether it was tried in vain, or its record cannot be used."""
        return self.refused or self.status in (Status.FAILED, Status.OOM, UNREADABLE)

    @property
    def record(self) -> Record:
        """The run's record."""
        return Record(self.planned.record_folder)

    @property
    def key(self) -> tuple[Path, EvaluationSpec]:
        """What tells what is shown of it from what is shown of any other."""
        return self.record.folder, self.planned.evaluation


def collect(
    planned: Sequence[PlannedRun], use_stale: bool = False, mistakes: Mapping[Path, str] | None = None
) -> list[RunState]:
    """Look up every planned run, in the order given; stale ones are used only where asked.

    `mistakes` says, by its folder, why a run could not be begun.
    """
    found = [_look_up(run, use_stale, (mistakes or {}).get(run.folder)) for run in planned]
    found = _on_labelled_splits(found, use_stale, mistakes or {})
    found = _same_data(found)
    if any(run.status == MISSING for run in found):
        found = _other_defaults(found)
    return found


def _on_labelled_splits(found: list[RunState], use_stale: bool, mistakes: Mapping[Path, str]) -> list[RunState]:
    """Take validation in the place of test for tasks whose finished runs have scores on validation alone.

    A run is scored on test at its end wherever labels are known.
    """
    scored: dict[str, set[str]] = {}
    for run in found:
        if run.result and run.status in (Status.FINISHED, STALE, NOT_EVALUATED):
            splits = scored.setdefault(run.planned.config["task"]["name"], set())
            splits |= {evaluation.split for evaluation in run.result.evaluations}
    unlabelled = {task for task, splits in scored.items() if "validation" in splits and "test" not in splits}
    return [
        _look_up(
            replace(run.planned, evaluation=replace(run.planned.evaluation, split="validation")),
            use_stale,
            mistakes.get(run.planned.folder),
        )
        if run.planned.evaluation.split == "test" and run.planned.config["task"]["name"] in unlabelled
        else run
        for run in found
    ]


def _look_up(planned: PlannedRun, use_stale: bool, mistake: str | None) -> RunState:
    record = Record(planned.record_folder)
    if not record.result_path.exists():
        return RunState(planned, MISSING, mistake, None, False, mistake is not None)
    run = inspect_run(record)
    result = run.result
    if result is None or run.status != Status.FINISHED:
        return RunState(planned, run.status, mistake or run.error, result, False, mistake is not None)
    evaluation, current = planned.evaluation.of(result), is_current(result)
    if evaluation is None and (current or use_stale):
        return RunState(planned, NOT_EVALUATED, _how_to_evaluate(planned.evaluation, record), result, False)
    if evaluation and not all(
        _is_number(evaluation.metrics.get(metric)) for metric in planned.config["task"]["metrics"]
    ):
        return RunState(planned, Status.FAILED, f"its score on {planned.evaluation} is no number", result, False)
    if current:
        if changed := retrained_parts(result, part_folders(planned.config["method"])):
            return RunState(planned, STALE, f"{RETRAINED}: {', '.join(changed)}", result, use_stale)
        return RunState(planned, run.status, None, result, True)
    commit = result.environment.git_commit if result.environment else None
    version = result.environment.versions.get("peftbench", "?") if result.environment else "?"
    reason = f"made by other code (peftbench {version}{f', commit {commit[:7]}' if commit else ''})"
    return RunState(planned, STALE, reason, result, use_stale)


def _how_to_evaluate(evaluation: EvaluationSpec, record: Record) -> str:
    words = ["peftbench", "evaluate", str(record.folder), "--split", evaluation.split]
    words += ["--merged"] if evaluation.merged else []
    words += ["--drop", str(evaluation.dropped_layers)] if evaluation.dropped_layers else []
    words += ["--keep-adapters", str(evaluation.kept_adapters)] if evaluation.kept_adapters else []
    return shlex.join(words)


def _is_number(score: float | None) -> bool:
    return score is not None and math.isfinite(score)


def _same_data(found: list[RunState]) -> list[RunState]:
    """Mark as stale, and never use, runs over other data than most: their scores cannot be compared."""
    by_task: dict[str, Counter[str]] = {}
    for run in found:
        if run.used:
            by_task.setdefault(data_source_of(run), Counter())[_data(run)] += 1
    most = {task: checksums.most_common(1)[0][0] for task, checksums in by_task.items()}
    return [
        replace(run, status=STALE, reason=OTHER_DATA, used=False)
        if run.used and _data(run) != most[data_source_of(run)]
        else run
        for run in found
    ]


def data_source_of(run: RunState) -> str:
    """Return where a run's data are by its config: a task's name may be one of several files, for prepared rows."""
    task = run.planned.config["task"]
    return json.dumps([task.get(key) for key in ("name", "id", "subset", "splits")], sort_keys=True)


def _data(run: RunState) -> str:
    return run.result.origin.data if run.result and run.result.origin else ""


def _other_defaults(found: list[RunState]) -> list[RunState]:
    """Say of missing runs where a finished one has the same overrides: a default has changed since."""
    known = {folder for run in found for folder in (run.planned.folder, *run.planned.others)}
    others: dict[frozenset[str], Run] = {}
    for folder in {run.planned.folder.parent for run in found}:
        for other in find_runs(folder, status=Status.FINISHED):
            if other.result and other.record.folder not in known:
                others[_learned(other.result.overrides)] = other
    return [_with_change(run, others.get(_learned(run.planned.overrides))) for run in found]


def _with_change(run: RunState, like: Run | None) -> RunState:
    """Say of a missing run what has changed since the finished one that is like it, where there is such a one."""
    if run.status != MISSING or run.reason or like is None:
        return run
    try:
        changes = "; ".join(differences(like.record.config(), run.planned.config))
    except UserError:  # a damaged neighbour says nothing
        return run
    return replace(run, reason=f"{like.id} was made with other defaults: {changes}")


def _learned(overrides: Iterable[str]) -> frozenset[str]:
    """Return the overrides that decide what is learned, in one spelling, the seed always among them."""
    settings = {"seed": "0"}
    for override in filter(is_learned, overrides):
        key, _, value = override.lstrip("+").partition("=")
        settings[key] = value
    return frozenset(f"{key}={value}" for key, value in settings.items())


def is_learned(override: str) -> bool:
    """Tell whether an override decides what a run learns, and not where it is filed or how it is carried out."""
    key = override.lstrip("+").partition("=")[0]
    return key not in _NOT_LEARNED and key.split(".")[0].split("/")[0] not in _NOT_LEARNED_GROUPS


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return what differs between two configs in what is learned: `trainer.lr was 0.001, is 0.002`."""
    lines = []
    for key in sorted({*old, *new}):
        name = f"{prefix}{key}"
        if name in _NOT_LEARNED or (not prefix and key in _NOT_LEARNED_GROUPS):
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name} was {before}, is {after}")
    return lines

"""The lines under a table: how to read it, which runs it lacks and why, what it mixes, what it was made with."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from peftbench.runs.result import Environment
from peftbench.tables.collect import MISSING, NOT_EVALUATED, OTHER_DATA, STALE, RunState
from peftbench.tables.groups import MOST_SETS
from peftbench.tables.sequential import Course
from peftbench.tables.spec import EvaluationSpec, TableSpec
from peftbench.tables.table import Cell, Column, Pair, Row, format_cell
from peftbench.tables.verdicts import points


def reading(spec: TableSpec, comparisons: int, pairs: Sequence[Pair], rows: Sequence[Row]) -> list[str]:
    """Say how to read the figures; `comparisons` with the baseline and of claims, `pairs` of `rows`."""
    together = f" for all {comparisons} comparisons together" if comparisons > 1 else ""
    return [
        "mean ± standard deviation over the seeds",
        f"bold: differs from {spec.baseline} at 95 %{together}; intervals are at the same level and need two seeds"
        " (examples by a paired bootstrap, seeds by Student's t: docs/statistics.md)",
        *(how_to_read_groups(spec.delta, pairs, rows) if any(pair.low is not None for pair in pairs) else []),
    ]


def split_shown(shown: EvaluationSpec, wanted: EvaluationSpec) -> list[str]:
    """Say what scores are chosen and shown on, where a table is to show test."""
    if wanted.split != "test":
        return []
    if shown.split == "test":
        return ["scores are on test; settings and epochs are chosen on validation (table.split)"]
    return ["the task has no labelled test split: scores are on validation, where settings and epochs are chosen too"]


def how_to_read_groups(
    delta: float, pairs: Sequence[Pair], rows: Sequence[Row], setting: str = "table.delta"
) -> list[str]:
    """Say how to read the groups, P(best) and verdicts; `setting` is what chooses δ."""
    of_all = f"95 % for all {len(pairs)} pairs together" if len(pairs) > 1 else "95 %"
    group = f"rows that share a letter cannot be told apart, {of_all}"
    if any("p_best" in row.cells for row in rows) and not any(row.group for row in rows):
        group = f"left out, more than {MOST_SETS} letters or too many rows; HTML and JSON have each pair, {of_all}"
    lines = [
        f"group: {group}",
        "P(best): the probability, given these examples and seeds, that the row's true score is the highest",
        f"not different: the whole interval is within ± {points(delta)} (two one-sided tests, Schuirmann 1987;"
        f" {setting})",
    ]
    if any(pair.needs_seeds or pair.needs_examples for pair in pairs):
        lines.append("what would decide: with a power of 80 %, if the true difference and spread are as measured")
    return lines


def on_added_seeds(course: Course | None) -> list[str]:
    """Say how seeds were added, where they were."""
    if course is None:
        return []
    if not course.looks_done:
        return [f"seeds are added while a comparison is open; {_first_look(course)}"]
    return [
        "seeds were added while a comparison with the baseline or the highest row was open; a difference is shown as it"
        " was told, and all of them err in 5 % together however often one looks (alpha-spending, Lan & DeMets 1983);"
        " figures are of the seeds at the last look"
    ]


def why_uncompared(course: Course | None) -> str:
    """Say why rows that have scores are compared with none, where they are not."""
    if course is None:
        return "for want of a second seed or the same examples"
    return "for a run failed, or for want of the same examples" if course.looks_done else f"for {_first_look(course)}"


def _first_look(course: Course) -> str:
    return f"the first look comes behind {max(course.seeds.values(), default=0)} seeds of each row"


def human_ceiling(ceiling: float | None, primary: Column) -> list[str]:
    """Say what human judges score, where that is known."""
    if ceiling is None:
        return []
    shown = f"{format_cell(Cell(ceiling), primary)} {primary.unit}".strip()
    what = "human ceiling, one half of the raters against the other"
    return [f"{what}: {primary.title} {shown} (scripts/human_ceiling.py)"]


def missing_runs(found: Sequence[RunState], command: str) -> list[str]:
    """Name the runs that figures lack, each kind with its reasons and what mends it."""
    notes = []
    unused = Counter(run.status for run in found if not run.used)
    if unused.pop(STALE, 0):
        notes += _stale_runs([run for run in found if run.status == STALE], command)
    if missing := unused.pop(MISSING, 0):
        notes.append(f"{missing} of {len(found)} runs are missing: {command}")
        notes += sorted({f"{run.planned.label}: {run.reason}" for run in found if run.status == MISSING and run.reason})
    if unused.pop(NOT_EVALUATED, 0):
        of_these = [run for run in found if run.status == NOT_EVALUATED]
        notes += [f"no scores on {run.planned.evaluation}: {run.planned.label}: {run.reason}" for run in of_these]
    for status in unused:
        notes += [
            f"{status}: {run.planned.label}, seed {run.planned.seed}{f': {run.reason}' if run.reason else ''}"
            for run in found
            if run.status == status and not run.used
        ]
    if any(run.status == STALE and run.used for run in found):
        stale = sorted({run.planned.label for run in found if run.status == STALE and run.used})
        notes.append(f"figures of {', '.join(stale)} are from runs of other code (stale=use)")
    return notes


def _stale_runs(stale: Sequence[RunState], command: str) -> list[str]:
    by_reason: dict[str | None, list[RunState]] = {}
    for run in stale:
        if not run.used:
            by_reason.setdefault(run.reason, []).append(run)
    use = ", stale=use takes them as they are"
    return [
        f"stale and left out, {reason}: {', '.join(run.record.folder.name for run in runs)};"
        f" {command} stale=rerun trains them again{'' if reason == OTHER_DATA else use}"
        for reason, runs in by_reason.items()
    ]


_NOT_TIMES = "times, latencies and steps cannot be compared between them"
# what of a run's environment changes its figures: what it is called, how it is read, and what that means
_CONDITIONS: tuple[tuple[str, Callable[[Environment], Any], str], ...] = (
    ("precisions", lambda environment: environment.precision, f"scores may differ by it, and {_NOT_TIMES}"),
    ("kinds of device", lambda environment: environment.device_type, f"scores may differ by it, and {_NOT_TIMES}"),
    ("devices", lambda environment: environment.device, _NOT_TIMES),
    ("numbers of threads", lambda environment: environment.threads, _NOT_TIMES),
)


def mixed_conditions(found: Sequence[RunState]) -> list[str]:
    """Say which rows were trained, or had their latency measured, under other conditions than the others."""
    used = [run for run in found if run.used and run.result]
    notes = {
        name: _mixed(
            name,
            [
                (run.planned.label, read(run.result.environment))
                for run in used
                if run.result and run.result.environment
            ],
            meaning,
        )
        for name, read, meaning in _CONDITIONS
    }
    for name, key in (("devices", "device"), ("numbers of threads", "threads")):
        if not notes[name]:  # which says as much of latencies
            measured = [(run.planned.label, section[key]) for run in used if key in (section := _latency(run))]
            notes[name] = _mixed(f"{name} in measuring latency", measured, "latencies cannot be compared between them")
    return [note for note in notes.values() if note]


def _latency(run: RunState) -> dict[str, Any]:
    return (run.result.latency.result if run.result else None) or {}


def _mixed(name: str, values: Sequence[tuple[str, Any]], meaning: str) -> str:
    """Name the rows of each value; empty where all have the same."""
    labels: dict[str, dict[str, None]] = {}
    for label, value in values:
        labels.setdefault(str(value), {})[label] = None
    if len(labels) < 2:
        return ""
    rows = "; ".join(f"{value} in {', '.join(of_value)}" for value, of_value in labels.items())
    return f"mixes {name}: {rows}; {meaning}"


def environment(found: Sequence[RunState]) -> dict[str, list[str]]:
    """Return versions, devices, threads, precisions and commits of the runs used, each a sorted list."""
    facts: dict[str, set[str]] = {}
    for run in found:
        if run.used and run.result and run.result.environment:
            for name, value in _facts(run.result.environment).items():
                facts.setdefault(name, set()).add(str(value))
    return {name: sorted(values) for name, values in facts.items()}


def _facts(environment: Environment) -> dict[str, Any]:
    facts = {key: getattr(environment, key) for key in ("device", "threads", "precision", "git_commit")}
    return {**environment.versions, **{key: value for key, value in facts.items() if value}}

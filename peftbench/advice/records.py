"""The user's own runs as comparisons: one for each task and model, a candidate for each setting of a method."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from peftbench.advice.choice import choose_runs, settings_of
from peftbench.advice.comparison import LOCAL, Candidate, Comparison, task_type
from peftbench.advice.conditions import conditions, together, train_overrides
from peftbench.errors import UserError
from peftbench.runs.find import Run, find_runs
from peftbench.runs.origin import is_current
from peftbench.runs.result import Status
from peftbench.tables import notes
from peftbench.tables.cells import full_step_times, record_cells, score_cells
from peftbench.tables.collect import RunState, collect
from peftbench.tables.columns import SCORES
from peftbench.tables.evidence import read_evidence
from peftbench.tables.pairs import compare_pairs
from peftbench.tables.pooling import pool_rows
from peftbench.tables.scored import RowScores
from peftbench.tables.simultaneous import Joint

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class LocalRuns:
    """The finished runs of one task and model.

    Attributes:
        task_type: see `comparison.task_type`. training_rows: of the task.
        runs: those of today's code. methods: their names. stale: how many there are besides, which are left out.
    """

    model: str
    task: str
    task_type: str
    training_rows: int | None
    methods: set[str]
    runs: list[Run]
    stale: int

    @property
    def name(self) -> str:
        """What tells it from the user's other runs."""
        return f"{self.task} from {self.model} ({self.task_type}, {self.training_rows or 0:,} training rows)"

    @property
    def lack(self) -> str:
        """Why it does not compare methods."""
        if not self.runs:
            return f"{self.task} from {self.model}: {self.stale} runs of other code, which force=true trains again"
        return f"{self.task} from {self.model}: fewer than two methods"


def find_local_runs(output_dir: Path) -> list[LocalRuns]:
    """Return the user's finished runs by task and model, data and weights being the same; damaged ones are left out."""
    groups: dict[tuple[str | None, ...], list[Run]] = defaultdict(list)
    for run in find_runs(output_dir, status=Status.FINISHED):
        result = run.result
        if result and result.origin and result.primary in SCORES:
            origin = result.origin
            groups[result.task, result.model, result.primary, origin.data, origin.weights].append(run)
    found = []
    for (task, model, *_), runs in groups.items():
        current = [run for run in runs if run.result and is_current(run.result)]
        kind = next((kind for run in runs if (kind := _type_of(run)) is not None), None)
        if kind is not None:
            rows = next((run.result.examples.get("train") for run in runs if run.result), None)
            methods = {run.result.method for run in current if run.result}
            found.append(LocalRuns(str(model), str(task), kind, rows, methods, current, len(runs) - len(current)))
    return found


def _type_of(run: Run) -> str | None:
    try:
        return task_type(run.record.config()["task"])
    except (UserError, KeyError, TypeError):
        return None


def compare_local_runs(group: LocalRuns, output_dir: Path) -> Comparison | None:
    """Return what a group of runs compares; None where fewer than two settings of methods have scores."""
    chosen, remarks = choose_runs(group.runs)
    found = collect(chosen)
    shown, evidence = read_evidence(found)
    by_label: dict[str, list[RunState]] = defaultdict(list)
    for run in shown:
        if run.used:
            by_label[run.planned.label].append(run)
    if len(by_label) < 2:
        return None
    scored = {
        label: RowScores({run.planned.seed: evidence[run.key].predictions for run in runs}, label=label)
        for label, runs in by_label.items()
    }
    used = [run for runs in by_label.values() for run in runs]
    primary = str(used[0].result and used[0].result.primary)
    pairs = compare_pairs(scored, primary)
    pool = pool_rows(row.draws(primary) for row in scored.values() if len(row.seeds) > 1)
    step_times = full_step_times(used)
    candidates = [
        Candidate(
            label,
            train_overrides(runs[0].planned),
            settings_of(runs[0].planned.config),
            record_cells(runs, step_times)
            | score_cells(runs, scored[label], Joint(_CONFIDENCE, {primary: pool}), [primary]),
        )
        for label, runs in by_label.items()
    ]
    split = used[0].planned.evaluation.split
    if group.stale:
        remarks.append(f"{group.stale} runs of other code are left out: train them again with force=true")
    left_out = [f"{run.planned.label}, seed {run.planned.seed}: {run.reason}" for run in shown if not run.used]
    return Comparison(
        kind=LOCAL,
        title="Your runs",
        source=f"your own records under {output_dir}",
        model=group.model,
        task=group.task,
        task_type=group.task_type,
        evaluation=split,
        primary=primary,
        candidates=candidates,
        pairs=pairs,
        paired=together(pairs),
        examples=len(next(iter(scored.values())).labels),
        seeds=max(len(runs) for runs in by_label.values()),
        notes=[*remarks, *left_out, *notes.mixed_conditions(shown)],
        **conditions(used),
    )

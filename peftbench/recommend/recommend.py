"""From a user's data and limits to one answer: stages that halve the candidates, and a comparison of the finalists."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peftbench.advice.limits import Limits
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.recommend.halving import Cost, Stage, finalists, first_stage, second_stage
from peftbench.recommend.stages import NoRunFinishedError, Outcome, run_stage
from peftbench.sweeps.request import TableRequest, read_request
from peftbench.terminal import console, format_duration

FEWEST_ROWS = 50
_FEWEST_SCORED = 10  # of each split
# of the run that shows how fast this machine is, before a budget is divided
_TRIAL_STEPS = 16


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        lines: settings that make the table of all candidates. limits: what an answer must keep to.
        budget: seconds for all runs, those of earlier calls among them, and for what this call takes besides; None is
            no end.
    """

    lines: list[str]
    limits: Limits = Limits()
    budget: float | None = None


@dataclass
class Selection:
    """How a recommendation came about.

    Attributes:
        folder: of the experiment that its runs lie in.
        seconds: what all runs took. overhead: what this call took besides, to start and to measure them.
        left_out: why candidates fell out, by their labels.
    """

    folder: Path
    seconds: float = 0.0
    overhead: float = 0.0
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Take in a stage."""
        self.seconds += outcome.seconds
        self.overhead += outcome.overhead
        self.left_out |= outcome.failed
        self.left_out |= {label: "; ".join(over.values()) for label, over in outcome.answer.over.items()}
        self.left_out |= {label: f"not measured: {', '.join(keys)}" for label, keys in outcome.answer.lacking.items()}


def recommend(question: Question) -> tuple[Outcome, Selection]:
    """Run the stages; what is trained already is not trained again, so an interrupted call goes on.

    Returns the comparison of the finalists, on test where there is one, and how it came to them.

    Raises UserError for data that cannot be learned from, limits that no candidate keeps to, and a budget that allows
    not even one run.
    """
    request = read_request(question.lines)
    _check_staged(request)
    rows = _check_data(request)
    total = _total_steps(request, rows)
    selection = Selection(Path(request.config.output_dir) / request.config.experiment)
    labels = _within_share(request, question.limits, selection)
    budget = question.budget or math.inf
    costs = dict.fromkeys(labels, Cost(1.0, 0.0))
    if question.budget is not None:
        costs = _tried(question, labels, total, selection)
        labels = list(costs)
        shortest = min(cost.of(1) for cost in costs.values())
        if shortest > budget:
            raise UserError(
                f"--budget {format_duration(budget)} allows not even one run: the shortest takes about"
                f" {format_duration(shortest)} here"
            )
    stage: Stage | None = first_stage(costs, budget)
    assert stage is not None
    selection.left_out |= dict.fromkeys(labels[len(stage.labels) :], "no time for it within the budget")
    number, ranked, overhead_per_run = 1, stage.labels, 0.0
    while stage is not None and len(stage.labels) > 1:
        steps = {label: stage.steps(total[label]) for label in stage.labels}
        head = f"stage {number}: {len(stage.labels)} candidates, {stage.fraction:.0%} of their training"
        console.print(f"\n{head}", style="bold")
        outcome = run_stage(question.lines, stage.labels, request.spec.seeds[:1], question.limits, steps, total)
        selection.add(outcome)
        ranked, costs, overhead_per_run = outcome.ranked, outcome.costs, outcome.overhead_per_run
        _check_some_left(ranked, selection, question.limits)
        stage = second_stage(ranked, stage, costs, budget, overhead_per_run) if number == 1 else None
        number += 1
    costs = {label: replace(cost, fixed=cost.fixed + overhead_per_run) for label, cost in costs.items()}
    last = finalists(ranked, costs, budget - selection.seconds - selection.overhead)
    return _finals(question, request.spec.seeds, last, costs, selection), selection


def _finals(
    question: Question, seeds: Sequence[int], labels: Sequence[str], costs: Mapping[str, Cost], selection: Selection
) -> Outcome:
    """Train the finalists in full, seed after seed, for as long as the budget has room for another."""
    a_seed = sum(costs[label].of(1) for label in labels)
    for count in range(1, len(seeds) + 1):
        shown = f"{count} of {len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
        console.print(f"\nin full: {', '.join(labels)}; {shown}", style="bold")
        outcome = run_stage(question.lines, labels, seeds[:count], question.limits)
        selection.overhead += outcome.overhead
        spent = selection.seconds + outcome.seconds + selection.overhead
        if question.budget is not None and spent + max(a_seed, outcome.seconds / count) > question.budget:
            break
    selection.add(replace(outcome, overhead=0.0))  # counted seed by seed
    _check_some_left(outcome.ranked, selection, question.limits)
    return outcome


def _tried(
    question: Question, labels: Sequence[str], total: Mapping[str, int], selection: Selection
) -> dict[str, Cost]:
    """Return what the candidates will cost, from a few steps of the first one that trains; those before it are out."""
    console.print("\nhow fast is this machine?", style="bold")
    error: NoRunFinishedError | None = None
    for number, first in enumerate(labels):
        steps = {first: min(_TRIAL_STEPS, total[first])}
        try:
            outcome = run_stage(question.lines, [first], [0], Limits(), steps, total)
        except NoRunFinishedError as met:
            error = error or met
            selection.left_out[first] = met.reason
            continue
        selection.add(outcome)
        (cost,) = outcome.costs.values()
        return {label: Cost(cost.training / total[first] * total[label], cost.fixed) for label in labels[number:]}
    assert error is not None
    raise error


def _check_staged(request: TableRequest) -> None:
    """Raise UserError for settings by which a sweep chooses its runs, which here the stages do."""
    chosen = "until=decided" if request.spec.most_seeds is not None else "explain_spread=true"
    if request.spec.most_seeds is not None or request.explain_spread:
        raise UserError(f"{chosen} is for `peftbench sweep table=…`: here the stages choose the runs: leave it out")


def _check_data(request: TableRequest) -> int:
    """Return the number of training rows; UserError where there is too little to learn or to compare."""
    from peftbench.tasks.kinds import load_task

    task = load_task(request.config.task)
    rows = sum(len(split) for split in task.splits.values())
    if rows < FEWEST_ROWS:
        raise UserError(
            f"{task.source} has {rows} rows: no method can be told from another on fewer than {FEWEST_ROWS}"
        )
    for name in ("validation", "test"):
        if (scored := len(task.splits.get(name, ""))) < _FEWEST_SCORED:
            raise UserError(
                f"{task.source}: its {name} rows are {scored}, too few to compare by. Where most labels occur once they"
                " are scores, perhaps: 'task.metrics=[pearson,spearman]' compares those"
            )
    return len(task.splits["train"])


def _total_steps(request: TableRequest, rows: int) -> dict[str, int]:
    """Return the steps of each candidate's full training."""
    steps = {}
    for run in request.planned:
        trainer: Mapping[str, Any] = run.config["trainer"]
        an_epoch = math.ceil(math.ceil(rows / trainer["batch_size"]) / trainer["accumulate"])
        steps[run.label] = min(an_epoch * trainer["epochs"], trainer["max_steps"] or math.inf)
    return {label: int(count) for label, count in steps.items()}


def _within_share(request: TableRequest, limits: Limits, selection: Selection) -> list[str]:
    """Return the candidates whose share keeps to the limit, by their numbers alone."""
    from peftbench.runs.counts import count_configs

    labels = [row.label for row in request.spec.rows]
    if limits.share is None:
        return labels
    configs = {run.label: run.config for run in request.planned}
    counts = count_configs([resolve(configs[label]) for label in labels])
    shares = {label: 100 * count["share_method"] for label, count in zip(labels, counts, strict=True)}
    fitting = [label for label in labels if shares[label] <= limits.share]
    selection.left_out |= {
        label: f"parameter share {share:.3g} %, over {limits.share:g}"
        for label, share in shares.items()
        if share > limits.share
    }
    _check_some_left(fitting, selection, limits)
    return fitting


def _check_some_left(labels: Sequence[str], selection: Selection, limits: Limits) -> None:
    if not labels:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in selection.left_out.items())
        raise UserError(f"no method keeps to {' and '.join(limits.by_figure) or 'what a run needs'}: {reasons}")

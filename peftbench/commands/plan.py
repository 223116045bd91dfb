"""`peftbench plan`: what a table could tell, and how long that takes, before anything more is trained."""

import argparse
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import inf
from pathlib import Path
from statistics import fmean

from peftbench.arguments import Parser
from peftbench.config.quoting import quote_free_text
from peftbench.config.task import TaskConfig
from peftbench.errors import UserError
from peftbench.runs.find import find_runs
from peftbench.runs.result import Result, Status
from peftbench.sweeps.request import TableRequest, read_request
from peftbench.tables.collect import NOT_EVALUATED, STALE, RunState, collect
from peftbench.tables.columns import POINTS
from peftbench.tables.evidence import read_evidence
from peftbench.tables.export.plan import save_plot, to_terminal
from peftbench.tables.plan import ASSUMED, assumed_spread, fill_durations, make_plan
from peftbench.tables.pooling import UNPOOLED, Pool, pool_rows
from peftbench.tables.scored import RowScores
from peftbench.tables.verdicts import DifferenceVariance, spread_of
from peftbench.terminal import print_table

_EXAMPLES = """
  peftbench plan table=lab/methods model=minilm seeds=5
  peftbench plan table=lab/methods model=minilm table.delta=0.5 --plot plan.svg

Spreads and durations come from the table's finished runs, or else from assumptions, which the output states.
"""
_EXAMPLES_ASSUMED = 1000
# enough for a variance, within a second
_DRAWS = 1000


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench plan",
        description="Estimate which differences a table can detect with how many seeds, and how long these take here.\n"
        "Nothing is trained.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="as for `peftbench sweep`: table=… and others")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw it, as .svg or .png")
    return parser


def main(argv: list[str]) -> int:
    """Print the plan; returns the exit code.

    Raises UserError for a mistake in the line or the table, one row alone, until=decided, or a plot of an unknown kind.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    if arguments.plot is not None and arguments.plot.suffix not in (".svg", ".png"):
        raise UserError(f"--plot {arguments.plot} must end in .svg or .png")
    request = read_request(quote_free_text(arguments.settings))
    if request.spec.most_seeds is not None:
        raise UserError(
            "until=decided: a plan is of one look at all seeds, and each look of until=decided, with a part of the 5 %,"
            " tells less: leave it out, or say seeds=…"
        )
    if len(request.spec.rows) < 2:
        raise UserError(f"table={request.spec.name} has one row: there is nothing to tell it from")
    metric = request.config.task.metrics[0]
    labels = [row.label for row in request.spec.rows]
    there = collect(request.planned, request.stale == "use")
    found = [run for run in there if run.planned.label in labels]
    shown, evidence = read_evidence(found)
    used = {label: [run for run in shown if run.used and run.planned.label == label] for label in labels}
    scored = {
        label: RowScores({run.planned.seed: evidence[run.key].predictions for run in runs}, _DRAWS, label)
        for label, runs in used.items()
        if runs
    }
    split = shown[0].planned.evaluation.split
    examples = next((len(row.labels) for row in scored.values()), None)
    others = [] if scored else _other_runs(request)
    assumed: list[str] = []
    if examples is None:
        split, examples, assumed = _labelled(request, split, others)
    spreads, sources = _spreads(scored, metric, examples, len(labels))
    trainings = _trainings(there)
    durations, of_durations = _durations(request, trainings, others)
    plan = make_plan(
        spreads,
        len(labels),
        {label: len(runs) for label, runs in trainings.items()},
        durations,
        examples,
        request.spec.delta,
        len(request.spec.seeds),
    )
    title = (
        f"{request.spec.title}: {len(labels)} rows, {request.config.model.name} on {request.config.task.name},"
        f" {metric} on {examples:,} examples of {split}"
    )
    print_table("", to_terminal(plan, title, [*assumed, *sources, of_durations, *_left_out(found)]))
    if arguments.plot is not None:
        save_plot(plan, title, arguments.plot)
    return 0


def _other_runs(request: TableRequest) -> list[Result]:
    """Return the finished runs of other settings, of the same model on the same task."""
    config = request.config
    runs = find_runs(Path(config.output_dir), Status.FINISHED, task=config.task.name, model=config.model.name)
    return [run.result for run in runs if run.result]


def _labelled(request: TableRequest, split: str, others: Sequence[Result]) -> tuple[str, int, list[str]]:
    """Return the split that scores would be on, where no run of the table tells it, its size, and what is assumed."""
    sizes = {evaluation.split: evaluation.examples for result in others for evaluation in result.evaluations}
    reason = "the data are not read for a plan unless they are on this machine"
    if not sizes and _is_at_hand(request.config.task):
        from peftbench.tasks.kinds import load_task

        try:
            splits = load_task(request.config.task).splits
            sizes = {name: len(part) for name, part in splits.items() if part.labels is not None}
        except UserError as error:
            reason = str(error)
    if sizes:
        name = split if split in sizes else "validation"
        return name, sizes[name], []
    return split, _EXAMPLES_ASSUMED, [f"assumed: {_EXAMPLES_ASSUMED:,} examples, for {reason}"]


def _is_at_hand(task: TaskConfig) -> bool:
    """Tell whether reading a task's data is a matter of a second, without asking the hub."""
    folder = task.dir or (task.source == "glue" and os.environ.get("PEFTBENCH_DATA"))
    return bool(folder or task.source in ("local", "pypi"))


def _spreads(
    scored: Mapping[str, RowScores], metric: str, examples: int, rows: int
) -> tuple[list[DifferenceVariance], list[str]]:
    """Return the spreads of all pairs that tell them, or else the assumed one, and where they are from.

    `rows` is how many the table is to have, which says how much they tell of each other's spread.
    """
    several = {label: POINTS * row.draws(metric) for label, row in scored.items() if len(row.seeds) > 1}
    pool = pool_rows(several.values())
    # two rows do not tell whether rows are alike: with the others of the table they are taken to be
    pool = Pool(0.0, inf, rows) if pool == UNPOOLED else pool._replace(rows=rows)
    spreads = [
        spread_of(several[label], several[other], pool)
        for label, other in combinations(several, 2)
        if scored[label].has_examples_of(scored[other])
    ]
    if not spreads:
        return [assumed_spread(examples, rows)], [f"assumed, for no two rows have two seeds yet: {ASSUMED}"]
    numbers = sorted({row.shape[1] for row in several.values()})
    seeds = f"{numbers[0]} seeds" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]} seeds"
    return spreads, [f"spread: measured, {seeds} of {', '.join(several)}; other rows as the median pair of these"]


def _trainings(there: Sequence[RunState]) -> dict[str, list[RunState]]:
    """Return the trained runs of the table by row; a run that several rows need counts for the first of them."""
    runs: dict[str, list[RunState]] = {}
    seen: set[Path] = set()
    for run in there:
        if run.planned.folder not in seen:
            seen.add(run.planned.folder)
            trained = run.used or run.status == NOT_EVALUATED
            runs.setdefault(run.planned.label, []).extend([run] if trained else [])
    return runs


def _durations(
    request: TableRequest, trainings: Mapping[str, Sequence[RunState]], others: Sequence[Result]
) -> tuple[dict[str, float | None], str]:
    """Return how long a run of each training takes, and where that is from."""
    recorded = {
        label: [run.result.time.total for run in runs if run.result and run.result.time]
        for label, runs in trainings.items()
    }
    durations = {label: fmean(seconds) if seconds else None for label, seconds in recorded.items()}
    known = [label for label, seconds in durations.items() if seconds is not None]
    if known:
        rest = "" if len(known) == len(durations) else "; other rows as the median of these"
        return fill_durations(durations, []), f"durations: recorded of {', '.join(known)}{rest}"
    seconds = [result.time.total for result in others if result.time]
    if seconds:
        what = f"{len(seconds)} other runs of {request.config.model.name} on {request.config.task.name}"
        return fill_durations(durations, seconds), f"durations: assumed as those of {what}, the median"
    return durations, "durations: not known, for there is no finished run of this model on this task"


def _left_out(found: Sequence[RunState]) -> list[str]:
    stale = sum(run.status == STALE and not run.used for run in found)
    return [f"{stale} runs of other code are left out: stale=use takes them"] if stale else []

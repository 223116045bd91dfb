"""What a search shows and writes: its trials, the one that won, and what that is worth on fresh seeds."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from peftbench.files import atomic_write, write_json
from peftbench.runs.result import Status
from peftbench.search.request import SearchRequest, lines_of
from peftbench.search.select import SPLIT, Summary, Trial, rank, select, summarize
from peftbench.search.space import Choices, Interval
from peftbench.tables.collect import RunState
from peftbench.terminal import console, format_metric, metric_name


def show_trials(request: SearchRequest, trials: Sequence[Trial]) -> None:
    """Print the trials, best first."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    for key in request.space.keys:
        table.add_column(key.lstrip("+"), justify="right", overflow="fold")
    classes = max((trial.classes for trial in trials), default=0)
    for metric in request.metrics:
        table.add_column(metric_name(metric, classes), justify="right", no_wrap=True)
    table.add_column("trained", justify="right")
    table.add_column("", overflow="fold")
    best = select(trials, request.primary)
    for trial in rank(trials, request.primary):
        scores = [format_metric(metric, trial.scores.get(metric)) for metric in request.metrics]
        trained = "–" if trial.trained is None else f"{trial.trained:,}"
        fate = "" if trial.status == Status.FINISHED else f"{trial.status}: {trial.reason or 'not trained'}"
        cells = [str(trial.number), *trial.point.values(), *scores, trained, fate]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if trial is best else None)
    kind = request.search.name
    head = f"{kind} search on {request.config.task.name}, {len(trials)} trials, seed {request.config.seed}; {SPLIT}"
    console.print(Text(f"\n{head}, last epoch", "bold"))
    console.print(table, soft_wrap=False)


def show_winner(request: SearchRequest, trials: Sequence[Trial], best: Trial, rerun: Sequence[RunState]) -> None:
    """Print what the winner was chosen for, and its scores on fresh seeds."""
    primary = request.primary
    seeds = ", ".join(str(run.planned.seed) for run in rerun if run.used)
    scored = sum(primary in trial.scores for trial in trials)
    show = console.print
    show(Text(f"\nwinner: trial {best.number}, {' '.join(lines_of(best.point))}", "bold"))
    score = format_metric(primary, best.scores[primary])
    chosen = f"chosen on {SPLIT}, by {metric_name(primary, best.classes)}: {score} is"
    if scored > 1:
        show(f"{chosen} the best of {scored} trials, picked for being high, and so optimistic")
    else:
        show(f"{chosen} the only trial with a score")
    for run in rerun:
        if not run.used:
            show(f"{run.status}: seed {run.planned.seed}{f', {run.reason}' if run.reason else ''}")
    notes = {SPLIT: "the split the choice was made on", "test": "nothing was chosen on it"}
    if seeds:
        show(f"the same settings on fresh seeds {seeds}:")
    for split, metrics in summarize(rerun).items():
        scores = "  ".join(
            f"{metric_name(name, best.classes)} {_format(name, summary)}" for name, summary in metrics.items()
        )
        show(Text.assemble(f"  {split:<10}  {scores}  ", (notes[split], "dim")))
    show(f"\n  {request.train_command(best.point)}")


def _format(metric: str, summary: Summary) -> str:
    mean = format_metric(metric, summary.mean)
    if summary.sd is None:
        return mean
    if mean.endswith(" %"):
        return f"{mean.removesuffix(' %')} ± {100 * summary.sd:.1f} %"
    return f"{mean} ± {summary.sd:.3f}"


def write_trials(request: SearchRequest, trials: Sequence[Trial]) -> None:
    """Write trials.csv, in the order of the search."""
    keys, metrics = request.space.keys, request.metrics
    with atomic_write(request.folder / "trials.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", *keys, *metrics, "trained", "seconds", "status", "run", "reason"])
        for trial in trials:
            scores = [trial.scores.get(metric) for metric in metrics]
            figures = [trial.trained, trial.seconds, trial.status, trial.id, trial.reason]
            writer.writerow([trial.number, *trial.point.values(), *scores, *figures])


def write_winner(request: SearchRequest, trials: Sequence[Trial], best: Trial, rerun: Sequence[RunState]) -> None:
    """Write winner.json: the choice and what it is worth."""
    summary = {
        split: {name: asdict(of_metric) for name, of_metric in metrics.items()}
        for split, metrics in summarize(rerun).items()
    }
    content = {
        "command": request.command,
        "search": asdict(request.search),
        "space": {dimension.key: _range(dimension) for dimension in request.space.dimensions},
        "chosen_on": SPLIT,
        "primary": request.primary,
        "trials": len(trials),
        "best_of": sum(request.primary in trial.scores for trial in trials),
        "winner": {"trial": best.number, "overrides": lines_of(best.point), "run": best.id, SPLIT: best.scores},
        "fresh_seeds": {
            "seeds": [run.planned.seed for run in rerun if run.used],
            "runs": [run.planned.folder.name for run in rerun if run.used],
            **summary,
        },
        "train": request.train_command(best.point),
    }
    write_json(request.folder / "winner.json", content)


def _range(dimension: Choices | Interval) -> Any:
    if isinstance(dimension, Choices):
        return list(dimension.values)
    return {"low": dimension.low, "high": dimension.high, "log": dimension.log}

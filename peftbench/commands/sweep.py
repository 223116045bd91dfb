"""`peftbench sweep`: train what a table still lacks, through any Hydra launcher, measure, and show the table."""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from peftbench.arguments import Parser
from peftbench.commands.table import show_spread
from peftbench.commands.table_output import show
from peftbench.config.quoting import quote_free_text
from peftbench.errors import INTERRUPTED, PeftbenchError, UserError
from peftbench.loggers.wandb_table import log_table
from peftbench.runs.result import SECTIONS
from peftbench.search import run as search
from peftbench.search.found_table import FoundTable, build_tables, find_runs_of
from peftbench.search.request import is_search
from peftbench.search.tuning import RowTrials, check_current, plan_trials, read_tuned
from peftbench.sweeps.evaluate import evaluate_rows
from peftbench.sweeps.measure import is_local, measure_rows, needed_sections
from peftbench.sweeps.request import TableRequest, command_of, key_of, read_request
from peftbench.sweeps.spread import varied_runs
from peftbench.sweeps.tasks import check_tasks, read_each, split_tasks
from peftbench.sweeps.train import exit_code, train_missing
from peftbench.sweeps.until import train_until_decided
from peftbench.tables.collect import PlannedRun, RunState
from peftbench.tables.export.formats import write_table
from peftbench.tables.spec import EvaluationSpec
from peftbench.tables.table import Tuned
from peftbench.tables.tuning import counted
from peftbench.terminal import console, format_duration

_EXAMPLES = """
a table
  table=lab/bottleneck     one of `peftbench list tables`
  seeds=3                  a number of seeds, or a list: seeds=[0,1,2]
  model=minilm task=rte    settings for all runs, as for `peftbench train`
  task=mrpc,rte            several tasks: one column each, and rows are compared by their mean
  table.split=test         show test scores where test is labelled (default: the table's split, or validation)
  table.delta=0.5          the largest difference, in points, that may be called not different (default: 1)
  evaluation.merged=true   show the runs merged into the backbone; a row may ask for dropped layers
                           (evaluation: {dropped_layers: 3}); missing scores are computed
  until=decided            add seeds where a comparison is undecided, up to most_seeds=20; budget=4h stops earlier
  on_error=stop            start no further runs once one has failed (default: continue)
  tuned=8                  first tune every row with this many trials on validation, in its method's search space
                           (search: in conf/method/*.yaml); the results shown use other seeds
  stale=rerun              retrain runs made by different code; stale=use takes them as they are (default: leave)
  explain_spread=true      also train runs that separate the effects of initialisation, batch order and dropout
  hydra/launcher=joblib    several runs at a time; slurm and ray for a cluster

The table, its plots and one page with everything are written to OUTPUT_DIR/EXPERIMENT/tables/TABLE/.

a search, with settings chosen on validation and the winner retrained on new seeds
  search=grid              every combination of the given values: trainer.lr=1e-4,1e-3 method.rank=4,8
  search=random            search.trials of them; also from ranges: 'trainer.lr=tag(log,interval(1e-5,1e-2))'
  search=optuna            the same search spaces (pip install 'peftbench[optuna]')
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench sweep",
        description="Train the runs that a table is missing and show it, or search for the best settings.\n"
        "Run the same command again to resume.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings", nargs="+", metavar="KEY=VALUE", help="the table or search, and settings for its runs"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the sweep; returns 0, 1 where a run failed, 2 for a mistake a run met, 130 where it was interrupted.

    Raises UserError for a mistake in the line, the table, or a row's config.
    """
    settings = quote_free_text(build_parser().parse_args(argv).settings)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if any(key_of(line) == "force" for line in settings):
        raise UserError("a sweep trains what is missing, without force=…; stale=rerun trains runs of other code again")
    if is_search(settings):
        return search.main(settings)
    lines = split_tasks(settings)
    made = [(request, list[Tuned]()) for request in read_each(lines, partial(read_request, tunes=True))]
    check_tasks([request for request, _ in made])
    for request, _ in made:
        _check_scored_here(request)
    trials = read_each(lines, plan_trials)
    started = time.monotonic()
    code = 0
    mistakes: dict[Path, str] = {}
    try:
        for number, line in enumerate(lines):
            if len(lines) > 1:
                name = made[number][0].config.task.name
                console.print(f"\ntask {number + 1} of {len(lines)}: {name}", style="bold")
            if trials[number]:
                _tune(made[number][0], trials[number], mistakes, started)
                made[number] = read_tuned(line, mistakes)
            request, _ = made[number]
            goes_on = _train(request, line, mistakes, started)
            code = evaluate_rows(request) or code
            code = measure_rows(request) or code
            if not goes_on:
                break
    except KeyboardInterrupt:
        code = INTERRUPTED
        if any(of_task and not tuned for of_task, (_, tuned) in zip(trials, made, strict=True)):
            console.print("\ninterrupted while tuning; the same command goes on")
            return code
    tables = [find_runs_of(request, tuned, mistakes) for request, tuned in made]
    _show_and_write(tables, lines, command_of(settings))
    return code or max(exit_code(table.found, mistakes) for table in tables)


def _show_and_write(tables: Sequence[FoundTable], lines: Sequence[list[str]], command: str) -> None:
    """Show the table and write it, of several tasks also each task's, in a folder of its name, and log all."""
    request = tables[0].request
    folder = Path(request.config.output_dir) / request.config.experiment / "tables" / request.spec.name
    table = build_tables(tables, command)
    show(table)
    written = [(table, write_table(table, folder))]
    for of_task, line in zip(tables, lines, strict=True):
        if len(tables) > 1:
            built = of_task.build()
            written.append((replace(built, name=f"{built.name}/{built.task}"), write_table(built, folder / built.task)))
        if of_task.request.explain_spread:
            show_spread(line, of_task.request, of_task.found)
    console.print(f"\ntable, plots and page: {folder}/{' and, of each task, below it' if len(tables) > 1 else ''}")
    if request.config.logger.name == "wandb" and request.config.logger.mode != "disabled":
        for built, files in written:
            log_table(built, files, request.config.logger, request.config.experiment)


def _tune(request: TableRequest, trials: Sequence[RowTrials], mistakes: dict[Path, str], started: float) -> None:
    """Train the trials by which each row's settings are chosen; nothing is measured besides their scores.

    Raises PeftbenchError where the budget is spent before the last row, and with on_error=stop for a failed trial.
    """
    check_current(trials, request.stale)
    of_rows = [row.planned for row in trials]
    batches = [[run for of_row in of_rows for run in of_row]] if request.budget is None else of_rows
    each = counted([len(of_row) for of_row in of_rows])
    console.print(f"tuning {len(trials)} rows, {each} trials each", style="bold")
    unmeasured = [f"measure.{section}=false" for section in SECTIONS]
    stop = request.on_error == "stop"
    for number, planned in enumerate(batches):
        if request.budget is not None and number and time.monotonic() - started > request.budget:
            allowed, done = format_duration(request.budget), f"{number} of {len(batches)} rows tuned"
            raise PeftbenchError(f"stopped by the budget of {allowed} with {done}; the same command goes on")
        if not train_missing(planned, request.hydra, request.stale, mistakes, lambda run: unmeasured, stop):
            raise PeftbenchError("a trial has failed, and on_error=stop starts nothing further")


def _train(request: TableRequest, settings: list[str], mistakes: dict[Path, str], started: float) -> bool:
    """Train what is missing: of a table with `until`, what its open comparisons need; False where it was stopped."""
    if request.spec.most_seeds is not None:
        train_until_decided(request, lambda runs: _train_and_score(request, runs, mistakes), mistakes, started)
        return True
    labels = [row.label for row in request.spec.rows]
    runs = [run for run in request.planned if run.label in labels]
    if request.explain_spread:
        runs += [run for of_source in varied_runs(settings).values() for run in of_source]
    return _train_runs(request, runs, mistakes)


def _check_scored_here(request: TableRequest) -> None:
    """Raise UserError where until=decided needs scores besides those of training, and runs are on other machines."""
    if request.spec.most_seeds is None or is_local(request):
        return
    if lacking := [run for run in request.planned if run.evaluation != EvaluationSpec(run.evaluation.split)]:
        raise UserError(
            f"until=decided looks at scores behind each seed, and those of row '{lacking[0].label}'"
            f" ({lacking[0].evaluation}) are made on this machine alone: hydra/launcher=basic or joblib"
        )


def _train_and_score(request: TableRequest, runs: Sequence[PlannedRun], mistakes: dict[Path, str]) -> bool:
    """Train what is missing of some runs and score them as the table shows them; False where it was stopped."""
    goes_on = _train_runs(request, runs, mistakes)
    evaluate_rows(request)
    return goes_on


def _train_runs(request: TableRequest, runs: Sequence[PlannedRun], mistakes: dict[Path, str]) -> bool:
    """Train what is missing of some runs, first the prepared ones of their seeds; False where it was stopped."""
    prepared, seeds = {row.label for row in request.spec.prepare}, {run.seed for run in runs}
    first = [run for run in request.planned if run.label in prepared and run.seed in seeds]
    more = partial(_measured_at_once, request)
    for planned in (first, runs):
        if not train_missing(planned, request.hydra, request.stale, mistakes, more, request.on_error == "stop"):
            return False
    return True


def _measured_at_once(request: TableRequest, run: RunState) -> list[str]:
    """Return the settings of what a run measures itself: nothing here, where it is measured after all training.

    On other machines the run of each row's first seed measures all that the table shows.
    """
    itself = run.planned.seed == min(request.spec.seeds) and not is_local(request)
    sections = needed_sections(request, run.planned) if itself else set()
    return [f"measure.{section}={str(section in sections).lower()}" for section in SECTIONS]

"""`peftbench sweep search=…`: try the settings of a space, choose one on validation, train it on fresh seeds."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from rich.text import Text

from peftbench.config.folder import CONFIG_NAME, CONFIG_PATH
from peftbench.config.hydra_session import VERSION_BASE
from peftbench.config.mistakes import translate
from peftbench.errors import INTERRUPTED, PeftbenchError, UserError
from peftbench.files import make_folder
from peftbench.search.report import show_trials, show_winner, write_trials, write_winner
from peftbench.search.request import BASE, SearchRequest, import_optuna, lines_of, read_search
from peftbench.search.select import Trial, outcome, select
from peftbench.search.space import Point, grid, sample
from peftbench.sweeps.request import merge
from peftbench.sweeps.train import exit_code, train_missing
from peftbench.tables.collect import STALE, PlannedRun, collect
from peftbench.terminal import console

_OF_SWEEPER, _OF_LAUNCHER = ("hydra/sweeper", "hydra.sweeper"), ("hydra/launcher", "hydra.launcher")


@dataclass(frozen=True)
class _Tried:
    point: Point
    planned: PlannedRun


def main(settings: Sequence[str]) -> int:
    """Run the search; returns 0, 1 where a run failed, 2 for a mistake a run met, 130 where it was interrupted.

    Raises UserError for a mistake in the line, the space or all trials, PeftbenchError where no trial has a score.
    """
    request = read_search(settings)
    tried: list[_Tried] = []
    mistakes: dict[Path, str] = {}
    interrupted = False
    try:
        _SEARCHES[request.search.name](request, tried, mistakes)  # each trial is in `tried` before it is trained
    except KeyboardInterrupt:
        interrupted = True
    found = collect([trial.planned for trial in tried], request.stale == "use", mistakes)
    trials = [outcome(n, trial.point, run) for n, (trial, run) in enumerate(zip(tried, found, strict=True), 1)]
    make_folder(request.folder)
    show_trials(request, trials)
    write_trials(request, trials)
    if interrupted:
        console.print(f"\ninterrupted; trials: {request.folder}/trials.csv")
        return INTERRUPTED
    best = select(trials, request.primary)
    if best is None:
        raise (UserError if mistakes else PeftbenchError)(_nothing_to_choose(trials))
    fresh = [request.planned(best.point, f"seed={seed}") for seed in _fresh_seeds(request)]
    console.print(Text(f"\nthe winner on fresh seeds: {' '.join(lines_of(best.point))}", "bold"))
    try:
        _train(fresh, request, mistakes)
    except KeyboardInterrupt:
        return INTERRUPTED
    rerun = collect(fresh, request.stale == "use", mistakes)
    show_winner(request, trials, best, rerun)
    write_winner(request, trials, best, rerun)
    console.print(f"\ntrials.csv and winner.json: {request.folder}/")
    return exit_code([*found, *rerun], mistakes)


# ---- the trials --------------------------------------------------------------------------------------------


def _try_grid(request: SearchRequest, tried: list[_Tried], mistakes: dict[Path, str]) -> None:
    _try_all(request, grid(request.space), tried, mistakes)


def _try_random(request: SearchRequest, tried: list[_Tried], mistakes: dict[Path, str]) -> None:
    assert request.search.trials is not None
    points = sample(request.space, request.search.trials, request.search.seed)
    if len(points) < request.search.trials:
        console.print(f"the space has {len(points)} combinations: search.trials={len(points)}", style="dim")
    _try_all(request, points, tried, mistakes)


def _try_all(request: SearchRequest, points: Iterable[Point], tried: list[_Tried], mistakes: dict[Path, str]) -> None:
    # two ways to write a number make one run
    runs = {trial.planned.folder: trial for trial in (_Tried(point, request.planned(point)) for point in points)}
    tried += runs.values()
    _train([trial.planned for trial in tried], request, mistakes)


def _try_optuna(request: SearchRequest, tried: list[_Tried], mistakes: dict[Path, str]) -> None:
    """Let Optuna's sweeper, run by Hydra, propose one combination after the other, and tell it the score."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    def objective(composed: DictConfig) -> float:
        drawn = dict(line.partition("=")[::2] for line in HydraConfig.get().overrides.task)
        point = request.space.point(drawn)
        trial = _Tried(point, request.planned(point))
        if all(trial.planned.folder != other.planned.folder for other in tried):
            tried.append(trial)
            console.print(f"\ntrial {len(tried)}", style="bold")
        _train([trial.planned], request, mistakes)
        (found,) = collect([trial.planned], request.stale == "use")
        # a failed trial is the worst there can be: the sampler is to keep away from it
        return outcome(0, point, found).scores.get(request.primary, float("-inf"))

    optuna = import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of_sweeper = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_jobs=1",
        f"hydra.sweeper.n_trials={request.search.trials}",
        f"hydra.sweeper.sampler.seed={request.search.seed}",
    ]
    given = [line for line in request.hydra if not line.startswith(_OF_LAUNCHER)]
    lines = merge(of_sweeper, given, BASE, request.space.fixed, [d.line for d in request.space.dimensions])
    sys.argv = [sys.argv[0], "-m", *lines]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=CONFIG_PATH, config_name=CONFIG_NAME)(objective)()
    except PeftbenchError:
        raise
    except Exception as error:
        raise translate(error, lines) from error


_SEARCHES = {"grid": _try_grid, "random": _try_random, "optuna": _try_optuna}


def _train(planned: Sequence[PlannedRun], request: SearchRequest, mistakes: dict[Path, str]) -> None:
    of_launcher = [line for line in request.hydra if not line.startswith(_OF_SWEEPER)]
    train_missing(planned, of_launcher, request.stale, mistakes)


def _fresh_seeds(request: SearchRequest) -> list[int]:
    """Return seeds that no trial ran with: the score of the one that won is partly its seed's luck."""
    return [request.config.seed + number for number in range(1, request.search.winner_seeds + 1)]


def _nothing_to_choose(trials: Sequence[Trial]) -> str:
    stale = sum(trial.status == STALE for trial in trials)
    if stale:
        rest = f" and {len(trials) - stale} have failed" if stale < len(trials) else ""
        return (
            f"no trial has a score: {stale} of {len(trials)} are of other code{rest};"
            " stale=rerun trains them again, stale=use takes them as they are"
        )
    reason = next((trial.reason for trial in trials if trial.reason), "see above")
    return f"all {len(trials)} trials have failed, there is no winner: {reason}"

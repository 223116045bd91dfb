"""`peftbench sweep search=…`: try the settings of a space, choose one on validation, train it on fresh seeds."""

import csv
import hashlib
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from rich.text import Text

from peftbench.commands import progress
from peftbench.commands.train import interrupt_on_sigterm, job
from peftbench.commands.wanted import STALE as STALE_POLICIES
from peftbench.commands.wanted import merge
from peftbench.compose import CONFIG_NAME, CONFIG_PATH, VERSION_BASE, compose, launcher, translate
from peftbench.config import RunConfig, fill, resolve
from peftbench.errors import PeftbenchError, UserError
from peftbench.records.files import atomic_write, make_folder, write_json
from peftbench.records.record import Status, run_id
from peftbench.search.select import SPLIT, Summary, Trial, metrics_of, outcome, rank, select, summarize
from peftbench.search.space import Choices, Point, Space, grid, read_space, sample
from peftbench.tables.collect import STALE, Found, Wanted, collect

_POLL_SECONDS = 2.0
_INTERRUPTED = 130
# settings of a trial where the line says nothing else
_BASE = ("experiment=search", "measure.latency=false")
# settings that do not make another search of it
_ELSEWHERE = ("experiment", "output_dir", "device", "threads", "force", "logger", "measure")
_OF_SWEEPER, _OF_LAUNCHER = ("hydra/sweeper", "hydra.sweeper"), ("hydra/launcher", "hydra.launcher")


@dataclass
class SearchConfig:
    """The group `search`; see conf/search/*.yaml. A grid has as many trials as combinations, and draws nothing."""

    name: str
    winner_seeds: int
    trials: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("winner_seeds", "trials"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"search.{key}={value} must be 1 or more")


@dataclass(frozen=True)
class SearchRequest:
    """What a command line asks for.

    Attributes:
        search: how to search. space: what is searched, and the settings of every trial.
        stale: what becomes of trials of other code, as in conf/sweep.yaml.
        hydra: the overrides for Hydra itself. command: the line to type for it. config: of one trial.
    """

    search: SearchConfig
    space: Space
    stale: str
    hydra: list[str]
    command: str
    config: RunConfig

    @property
    def primary(self) -> str:
        """The metric that is chosen by."""
        return self.config.task.metrics[0]

    @property
    def folder(self) -> Path:
        """Where the search's files go; a larger number of trials or winner's seeds goes on in the same."""
        drawn = [] if self.search.name == "grid" else [f"search.seed={self.search.seed}"]
        learned = [line for line in self.space.fixed if _group(line) not in _ELSEWHERE and _key(line) != "task.dir"]
        text = "\n".join(sorted([*learned, *drawn, *(dimension.line for dimension in self.space.dimensions)]))
        name = f"{self.search.name}-{self.config.task.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return Path(self.config.output_dir) / self.config.experiment / "searches" / name

    def wanted(self, point: Point, *more: str) -> Wanted:
        """Return the run of a combination; raises UserError where the config is not right."""
        overrides = merge(_BASE, self.space.fixed, _lines(point), more)
        config = _composed(overrides, self.hydra)
        plain = config.plain()
        folder = Path(config.output_dir) / config.experiment / run_id(plain)
        return Wanted(" ".join(_lines(point)), config.seed, overrides, plain, folder)


@dataclass(frozen=True)
class _Tried:
    point: Point
    wanted: Wanted


def is_search(settings: Sequence[str]) -> bool:
    """Tell whether a sweep's line asks for a search; raises UserError where it asks for a table too, or for neither."""
    keys = {_key(line) for line in settings}
    if {"search", "table"} <= keys:
        raise UserError("a sweep has either table=… or search=…, not both")
    if not keys & {"search", "table"}:
        raise UserError(
            "say which table, or which search: table=… (`peftbench list tables` shows those there are),"
            " or search=grid, random or optuna"
        )
    return "search" in keys


def main(settings: Sequence[str]) -> int:
    """Run the search; returns 0, 1 where a run failed, 130 where it was interrupted.

    Raises UserError for a mistake in the line or the space, PeftbenchError where no trial has a score.
    """
    request = read_search(settings)
    interrupt_on_sigterm()
    tried: list[_Tried] = []
    interrupted = False
    try:
        _SEARCHES[request.search.name](request, tried)  # each trial is in `tried` before it is trained
    except KeyboardInterrupt:
        interrupted = True
    found = collect([trial.wanted for trial in tried], use_stale=request.stale == "use")
    trials = [outcome(n, trial.point, run) for n, (trial, run) in enumerate(zip(tried, found, strict=True), 1)]
    make_folder(request.folder)
    _show_trials(request, trials)
    _write_trials(request, trials)
    if interrupted:
        progress.console.print(f"\ninterrupted; trials: {request.folder}/trials.csv", markup=False)
        return _INTERRUPTED
    best = select(trials, request.primary)
    if best is None:
        raise PeftbenchError(_nothing_to_choose(trials))
    fresh = [request.wanted(best.point, f"seed={seed}") for seed in _fresh_seeds(request)]
    progress.console.print(f"\n[bold]winner[/bold]: {' '.join(_lines(best.point))}, on fresh seeds")
    try:
        _train(fresh, request)
    except KeyboardInterrupt:
        return _INTERRUPTED
    rerun = collect(fresh, use_stale=request.stale == "use")
    _show_winner(request, trials, best, rerun)
    _write_winner(request, trials, best, rerun)
    progress.console.print(f"\ntrials.csv and winner.json: {request.folder}/", markup=False)
    return 1 if any(run.status not in (Status.FINISHED, STALE) for run in (*found, *rerun)) else 0


# ---- the line ----------------------------------------------------------------------------------------------


def read_search(settings: Sequence[str]) -> SearchRequest:
    """Read the line; raises UserError for any mistake in it, the settings of the trials included."""
    lines = merge(settings)
    space = read_space(lines)
    hydra = [line for line in lines if _group(line) == "hydra"]
    of_search = [line for line in lines if _group(line) == "search"]
    searchpath = _searchpath(hydra)
    # the group is none of a run's: it has to be added
    composed = compose([*searchpath, *(f"+{line}" if _key(line) == "search" else line for line in of_search)])
    search: SearchConfig = fill(SearchConfig, _plain(composed.search), "search")
    if search.name not in _SEARCHES:
        raise UserError(f"search.name={search.name} is unknown: choose from {', '.join(_SEARCHES)}")
    if search.name == "optuna":
        _optuna()
    stale = next((line.partition("=")[2] for line in lines if _key(line) == "stale"), STALE_POLICIES[0])
    if stale not in STALE_POLICIES:
        raise UserError(f"stale={stale} is unknown: choose from {', '.join(STALE_POLICIES)}")
    fixed = tuple(line for line in space.fixed if _group(line) not in ("search", "stale", "hydra"))
    space = Space(space.dimensions, fixed)
    first = grid(space)[0] if search.name == "grid" else sample(space, 1, search.seed)[0]
    return SearchRequest(
        search=search,
        space=space,
        stale=stale,
        hydra=hydra,
        command=f"peftbench sweep {shlex.join(line for line in settings if _key(line) != 'stale')}",
        config=_composed(merge(_BASE, fixed, _lines(first)), hydra),
    )


def _composed(overrides: Sequence[str], hydra: Sequence[str]) -> RunConfig:
    return resolve(compose([*_searchpath(hydra), *overrides]))


def _searchpath(hydra: Iterable[str]) -> list[str]:
    return [line for line in hydra if _key(line) == "hydra.searchpath"]


def _plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def _key(line: str) -> str:
    return line.lstrip("+~").partition("=")[0]


def _group(line: str) -> str:
    return _key(line).replace("/", ".").split(".")[0]


def _lines(point: Point) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


# ---- the trials --------------------------------------------------------------------------------------------


def _try_grid(request: SearchRequest, tried: list[_Tried]) -> None:
    _try_all(request, grid(request.space), tried)


def _try_random(request: SearchRequest, tried: list[_Tried]) -> None:
    assert request.search.trials is not None
    points = sample(request.space, request.search.trials, request.search.seed)
    if len(points) < request.search.trials:
        progress.console.print(f"the space has {len(points)} combinations: search.trials={len(points)}", style="dim")
    _try_all(request, points, tried)


def _try_all(request: SearchRequest, points: Iterable[Point], tried: list[_Tried]) -> None:
    # two ways to write a number make one run
    runs = {trial.wanted.folder: trial for trial in (_Tried(point, request.wanted(point)) for point in points)}
    tried += runs.values()
    _train([trial.wanted for trial in tried], request)


def _try_optuna(request: SearchRequest, tried: list[_Tried]) -> None:
    """Let Optuna's sweeper, run by Hydra, propose one combination after the other, and tell it the score."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    def objective(composed: DictConfig) -> float:
        drawn = dict(line.partition("=")[::2] for line in HydraConfig.get().overrides.task)
        point = request.space.point(drawn)
        trial = _Tried(point, request.wanted(point))
        if all(trial.wanted.folder != other.wanted.folder for other in tried):
            tried.append(trial)
            progress.console.print(f"\n[bold]trial {len(tried)}[/bold]")
        _train([trial.wanted], request)
        (found,) = collect([trial.wanted], use_stale=request.stale == "use")
        # a failed trial is the worst there can be: the sampler is to keep away from it
        return outcome(0, point, found).scores.get(request.primary, float("-inf"))

    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    of_sweeper = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_jobs=1",
        f"hydra.sweeper.n_trials={request.search.trials}",
        f"hydra.sweeper.sampler.seed={request.search.seed}",
    ]
    given = [line for line in request.hydra if not line.startswith(_OF_LAUNCHER)]
    lines = merge(of_sweeper, given, _BASE, request.space.fixed, [d.line for d in request.space.dimensions])
    sys.argv = [sys.argv[0], "-m", *lines]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=CONFIG_PATH, config_name=CONFIG_NAME)(objective)()
    except PeftbenchError:
        raise
    except Exception as error:
        raise translate(error, lines) from error


def _optuna() -> Any:
    try:
        import_module("hydra_plugins.hydra_optuna_sweeper._impl")
        return import_module("optuna")
    except ImportError as error:
        raise UserError("search=optuna is not installed: pip install 'peftbench[optuna]'") from error


_SEARCHES = {"grid": _try_grid, "random": _try_random, "optuna": _try_optuna}


def _train(wanted: Sequence[Wanted], request: SearchRequest) -> None:
    """Train until every run is finished or has failed here; runs that others train are waited for."""
    tried: set[Path] = set()
    waited = False
    while True:
        found = collect(wanted)
        todo = [run for run in found if run.wanted.folder not in tried and _is_lacking(run, request.stale)]
        if todo:
            progress.console.print(f"{len(found) - len(todo)} of {len(found)} runs are there, {len(todo)} to train")
            with launcher(job, [line for line in request.hydra if not line.startswith(_OF_SWEEPER)]) as launch:
                launch([[*run.wanted.overrides, *(["force=true"] if run.status == STALE else [])] for run in todo])
            # one that another process holds comes again
            started = {run.wanted.folder for run in todo}
            tried |= started & {run.wanted.folder for run in collect(wanted) if run.status != Status.RUNNING}
        elif not any(run.status == Status.RUNNING for run in found):
            return
        else:
            if not waited:
                progress.console.print("waiting for runs that another process trains", style="dim")
                waited = True
            time.sleep(_POLL_SECONDS)


def _is_lacking(run: Found, stale: str) -> bool:
    if run.status == STALE:
        return stale == "rerun"
    return run.status not in (Status.FINISHED, Status.RUNNING)


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


# ---- what is shown and written -----------------------------------------------------------------------------


def _metrics(request: SearchRequest) -> list[str]:
    return request.config.task.metrics


def _show_trials(request: SearchRequest, trials: Sequence[Trial]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    for key in request.space.keys:
        table.add_column(key.lstrip("+"), justify="right", overflow="fold")
    for metric in _metrics(request):
        table.add_column(progress.metric_name(metric), justify="right", no_wrap=True)
    table.add_column("trained", justify="right")
    table.add_column("", overflow="fold")
    best = select(trials, request.primary)
    for trial in rank(trials, request.primary):
        scores = [progress.format_metric(metric, trial.scores.get(metric)) for metric in _metrics(request)]
        trained = "–" if trial.trained is None else f"{trial.trained:,}"
        fate = "" if trial.status == Status.FINISHED else f"{trial.status}: {trial.reason or 'not trained'}"
        cells = [str(trial.number), *trial.point.values(), *scores, trained, fate]
        table.add_row(*(Text(cell) for cell in cells), style="bold" if trial is best else None)
    kind = request.search.name
    head = f"{kind} search on {request.config.task.name}, {len(trials)} trials, seed {request.config.seed}; {SPLIT}"
    progress.console.print(Text(f"\n{head}, last epoch", "bold"))
    progress.console.print(table, soft_wrap=False)


def _show_winner(request: SearchRequest, trials: Sequence[Trial], best: Trial, rerun: Sequence[Found]) -> None:
    primary = request.primary
    seeds = ", ".join(str(run.wanted.seed) for run in rerun if run.used)
    scored = sum(primary in trial.scores for trial in trials)
    show = progress.console.print
    show(Text(f"\nwinner: trial {best.number}, {' '.join(_lines(best.point))}", "bold"))
    show(
        f"chosen on {SPLIT}, by {progress.metric_name(primary)}: {progress.format_metric(primary, best.scores[primary])}"
        f" is the best of {scored} trials, picked for being high, and so optimistic"
    )
    for run in rerun:
        if not run.used:
            show(f"{run.status}: seed {run.wanted.seed}{f', {run.reason}' if run.reason else ''}", markup=False)
    notes = {SPLIT: "the split the choice was made on", "test": "nothing was chosen on it"}
    if seeds:
        show(f"the same settings on fresh seeds {seeds}:")
    for split, metrics in summarize(rerun).items():
        scores = "  ".join(f"{progress.metric_name(name)} {_format(name, told)}" for name, told in metrics.items())
        show(f"  {split:<10}  {scores}  [dim]{notes[split]}[/dim]")
    show(f"\n  {_command(request, best)}", markup=False)


def _format(metric: str, told: Summary) -> str:
    mean = progress.format_metric(metric, told.mean)
    if told.sd is None:
        return mean
    if mean.endswith(" %"):
        return f"{mean.removesuffix(' %')} ± {100 * told.sd:.1f} %"
    return f"{mean} ± {told.sd:.3f}"


def _command(request: SearchRequest, best: Trial) -> str:
    """Return the line that trains with the winning settings."""
    settings = [line for line in merge(request.space.fixed, _lines(best.point)) if _key(line) != "seed"]
    return f"peftbench train {shlex.join([*_searchpath(request.hydra), *settings])}"


def _write_trials(request: SearchRequest, trials: Sequence[Trial]) -> None:
    keys, metrics = request.space.keys, _metrics(request)
    with atomic_write(request.folder / "trials.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", *keys, *metrics, "trained", "seconds", "status", "run", "reason"])
        for trial in trials:
            scores = [trial.scores.get(metric) for metric in metrics]
            told = [trial.trained, trial.seconds, trial.status, trial.id, trial.reason]
            writer.writerow([trial.number, *trial.point.values(), *scores, *told])


def _write_winner(request: SearchRequest, trials: Sequence[Trial], best: Trial, rerun: Sequence[Found]) -> None:
    summary = {
        split: {name: asdict(told) for name, told in metrics.items()} for split, metrics in summarize(rerun).items()
    }
    content = {
        "command": request.command,
        "search": asdict(request.search),
        "space": {dimension.key: _range(dimension) for dimension in request.space.dimensions},
        "chosen_on": SPLIT,
        "primary": request.primary,
        "trials": len(trials),
        "best_of": sum(request.primary in trial.scores for trial in trials),
        "winner": {"trial": best.number, "overrides": _lines(best.point), "run": best.id, SPLIT: best.scores},
        "fresh_seeds": {
            "seeds": [run.wanted.seed for run in rerun if run.used],
            "runs": [run.wanted.folder.name for run in rerun if run.used],
            **summary,
        },
        "train": _command(request, best),
    }
    write_json(request.folder / "winner.json", content)


def _range(dimension: Any) -> Any:
    if isinstance(dimension, Choices):
        return list(dimension.values)
    return {"low": dimension.low, "high": dimension.high, "log": dimension.log}

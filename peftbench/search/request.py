"""From a command line to a search: its settings, its space, and the runs of its trials."""

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from peftbench.config.compose import compose
from peftbench.config.fill import fill
from peftbench.config.schema import RunConfig, resolve
from peftbench.errors import UserError, nearest
from peftbench.runs.pinned_config import possible_folders
from peftbench.search.space import Point, Space, grid, read_space, sample
from peftbench.sweeps.request import STALE, key_of, merge
from peftbench.tables.collect import PlannedRun

_MOST = 10_000  # trials, or seeds of the winner
_NAMES = ("grid", "random", "optuna")
# settings of a trial where the line says nothing else
BASE = ("experiment=search", "measure.latency=false")
# settings that do not make another search of it
_ELSEWHERE = ("experiment", "output_dir", "device", "threads", "force", "logger", "measure")


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
            if value is not None and not 1 <= value <= _MOST:
                raise UserError(f"search.{key}={value} must be from 1 to {_MOST:,}")
        if self.trials is None and self.name != "grid":
            raise UserError(f"search={self.name} needs a number of trials: search.trials=20")


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
    def metrics(self) -> list[str]:
        """The task's metrics, the one that is chosen by first."""
        return self.config.task.metrics

    @property
    def primary(self) -> str:
        """The metric that is chosen by."""
        return self.metrics[0]

    @property
    def folder(self) -> Path:
        """Where the search's files go; a larger number of trials or winner's seeds goes on in the same."""
        drawn = [] if self.search.name == "grid" else [f"search.seed={self.search.seed}"]
        learned = [line for line in self.space.fixed if _group(line) not in _ELSEWHERE and key_of(line) != "task.dir"]
        text = "\n".join(sorted([*learned, *drawn, *(dimension.line for dimension in self.space.dimensions)]))
        name = f"{self.search.name}-{self.config.task.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return Path(self.config.output_dir) / self.config.experiment / "searches" / name

    def train_command(self, point: Point) -> str:
        """Return the line that trains with a combination's settings."""
        settings = [line for line in merge(self.space.fixed, lines_of(point)) if key_of(line) != "seed"]
        return f"peftbench train {shlex.join([*_searchpath(self.hydra), *settings])}"

    def planned(self, point: Point, *more: str) -> PlannedRun:
        """Return the run of a combination; raises UserError where the config is not right."""
        overrides = merge(BASE, self.space.fixed, lines_of(point), more)
        config = _composed(overrides, self.hydra)
        config, folders = possible_folders(config)
        return PlannedRun(
            " ".join(lines_of(point)), config.seed, overrides, config.plain(), folders[0], others=folders[1:]
        )


def is_search(settings: Sequence[str]) -> bool:
    """Tell whether a sweep's line asks for a search; raises UserError where it asks for a table too, or for neither."""
    keys = {key_of(line) for line in settings}
    if {"search", "table"} <= keys:
        raise UserError("a sweep has either table=… or search=…, not both")
    if not keys & {"search", "table"}:
        raise UserError(
            "say which table, or which search: table=… (`peftbench list tables` shows those there are),"
            " or search=grid, random or optuna"
        )
    return "search" in keys


def read_search(settings: Sequence[str]) -> SearchRequest:
    """Read the line; raises UserError for any mistake in it, the settings of the trials included."""
    lines = merge(settings)
    hydra = [line for line in lines if _group(line) == "hydra"]
    of_search = [line for line in lines if _group(line) == "search"]
    search = _read_config(of_search, _searchpath(hydra))  # first: a misspelt search has no space
    space = read_space(lines)
    if search.name not in _NAMES:
        raise UserError(f"search.name={search.name} is unknown: choose from {', '.join(_NAMES)}")
    if search.name == "optuna":
        import_optuna()
    stale = next((line.partition("=")[2] for line in lines if key_of(line) == "stale"), STALE[0])
    if stale not in STALE:
        raise UserError(f"stale={stale} is unknown: choose from {', '.join(STALE)}")
    fixed = tuple(line for line in space.fixed if _group(line) not in ("search", "stale", "hydra"))
    space = Space(space.dimensions, fixed)
    first = grid(space)[0] if search.name == "grid" else sample(space, 1, search.seed)[0]
    return SearchRequest(
        search=search,
        space=space,
        stale=stale,
        hydra=hydra,
        command=f"peftbench sweep {shlex.join(line for line in settings if key_of(line) != 'stale')}",
        config=_composed(merge(BASE, fixed, lines_of(first)), hydra),
    )


def _read_config(of_search: Sequence[str], searchpath: Sequence[str]) -> SearchConfig:
    chosen = next(line.partition("=")[2] for line in of_search if key_of(line) == "search")
    group = [*searchpath, f"+search={chosen}"]  # a run has no such group: it has to be added
    known = compose(group).search
    settings = [line for line in of_search if key_of(line) != "search"]
    for line in settings:
        name = key_of(line).removeprefix("search.")
        if name not in known:
            raise UserError(f"{line}: search={chosen} has no key {name!r}. {nearest(name, map(str, known))}")
    raw: Any = OmegaConf.to_container(compose([*group, *settings]).search, resolve=True)
    search: SearchConfig = fill(SearchConfig, raw, "search")
    return search


def _composed(overrides: Sequence[str], hydra: Sequence[str]) -> RunConfig:
    return resolve(compose([*_searchpath(hydra), *overrides]))


def _searchpath(hydra: Iterable[str]) -> list[str]:
    return [line for line in hydra if key_of(line) == "hydra.searchpath"]


def _group(line: str) -> str:
    return key_of(line).replace("/", ".").split(".")[0]


def lines_of(point: Point) -> list[str]:
    """Return a combination as overrides."""
    return [f"{key}={value}" for key, value in point.items()]


def import_optuna() -> Any:
    """Return the module; raises UserError where it, or Hydra's sweeper for it, cannot be imported."""
    try:
        import_module("hydra_plugins.hydra_optuna_sweeper._impl")
        return import_module("optuna")
    except ImportError as error:
        raise UserError("search=optuna is not installed: pip install 'peftbench[optuna]'") from error

"""From a command line to a table's spec and the runs that it wants."""

import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from peftbench.arguments import duration
from peftbench.config.compose import compose
from peftbench.config.folder import SWEEP_NAME
from peftbench.config.groups import read_group
from peftbench.config.schema import RunConfig, resolve
from peftbench.errors import UserError, nearest
from peftbench.runs.pinned_config import possible_folders
from peftbench.tables.collect import PlannedRun
from peftbench.tables.spec import KEYS, RowSpec, TableSpec, read_spec

# settings of a sweep itself; all others are the runs'
_OF_SWEEP = (
    *("table", "seeds", "evaluation", "on_error", "stale", "explain_spread", "tuned"),
    *("until", "budget", "most_seeds"),
)
# how a row names the run of a prepared one, and what Hydra reads without quotes
_RUN, _PLAIN = re.compile(r"\brun\(([^()]*)\)"), re.compile(r"[\w./+-]+", re.ASCII)
_MOST_SEEDS = 200
ON_ERROR, STALE = ("continue", "stop"), ("leave", "use", "rerun")


@dataclass(frozen=True)
class TableRequest:
    """What a command line asks for.

    Attributes:
        spec: the table. planned: its runs, those that others need last.
        on_error, stale, explain_spread: see conf/sweep.yaml. budget: in seconds; None is no end.
        hydra: the overrides for Hydra itself, its launcher among them.
        config: of the first row, with the settings that all runs share. command: the line to type for it.
    """

    spec: TableSpec
    planned: list[PlannedRun]
    on_error: str
    stale: str
    explain_spread: bool
    budget: float | None
    hydra: list[str]
    config: RunConfig
    command: str


@dataclass(frozen=True)
class TableLine:
    """What a command line says, before any run is planned.

    Attributes:
        spec: the table. settings: of the sweep itself, checked, see conf/sweep.yaml.
        given: the overrides of all runs. found_in: the one that says where else Hydra finds configs.
    """

    spec: TableSpec
    settings: Mapping[str, Any]
    given: list[str]
    found_in: list[str]


def read_line(argv: Sequence[str]) -> TableLine:
    """Read the line and the table it names; raises UserError for any mistake in them but in the runs' settings."""
    chosen = [line.partition("=")[2] for line in argv if key_of(line) == "table"]
    if len(chosen) != 1:
        raise UserError("say which table, once: table=…; `peftbench list tables` shows those there are")
    if "," in (tasks := last_value(argv, "task") or ""):
        raise UserError(f"task={tasks}: only `peftbench sweep table=…` and `peftbench table` take several tasks")
    for line in argv:
        if key_of(line) == "evaluation.split":
            raise UserError(f"{line}: this is called table.split={line.partition('=')[2]} now")
        group, _, key = key_of(line).partition(".")
        if group == "table" and key and key.split(".")[0] not in KEYS:
            raise UserError(f"{line}: a table has no setting {key!r}. {nearest(key, KEYS)}")
    try:
        composed = compose([line for line in argv if _is_of(line, _OF_SWEEP) or _is_hydra(line)], SWEEP_NAME)
    except UserError as error:
        tables = [table["name"] for table in read_group("table")]
        if "there is no such table" in str(error) and chosen[0] not in tables:
            raise UserError(f"table={chosen[0]}: there is no such table. {nearest(chosen[0], tables)}") from error
        raise
    if isinstance(composed.table, DictConfig) and "seeds" not in composed.table and last_value(argv, "seeds") is None:
        raise UserError(f"table={chosen[0]}: seeds is missing")
    try:
        settings: Any = OmegaConf.to_container(OmegaConf.masked_copy(composed, list(_OF_SWEEP)), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"table={chosen[0]}: {str(error).splitlines()[0]}") from error
    spec = read_spec(chosen[0], settings["table"], settings["seeds"], settings["evaluation"])
    spec = _with_looks(spec, argv, settings)
    for key, choices in (("on_error", ON_ERROR), ("stale", STALE)):
        if settings[key] not in choices:
            raise UserError(f"{key}={settings[key]} is unknown: choose from {', '.join(choices)}")
    if not isinstance(settings["explain_spread"], bool):
        raise UserError(f"explain_spread={settings['explain_spread']} must be true or false")
    if settings["tuned"] is not None and (type(settings["tuned"]) is not int or settings["tuned"] < 1):
        raise UserError(f"tuned={settings['tuned']} must be a number of trials, 1 or more")
    given = [line for line in argv if not _is_of(line, _OF_SWEEP) and not _is_hydra(line)]
    if any(key_of(line) == "seed" for line in given):
        raise UserError("a table's runs have several seeds: say seeds=3, or seeds=[0,1,2], instead of seed=…")
    for line in given:
        _check_key(line)
        _check_has_effect(line, spec)
    return TableLine(spec, settings, given, [line for line in argv if key_of(line) == "hydra.searchpath"])


def read_request(
    argv: Sequence[str], adapt: Callable[[TableSpec], TableSpec] = lambda spec: spec, *, tunes: bool = False
) -> TableRequest:
    """Compose the table and every run it wants; raises UserError for any mistake in the line or the table.

    `adapt` returns the table that is wanted of the one that the line names. `tunes`: `tuned=…` is heeded by the caller.
    """
    read = read_line(argv)
    if read.settings["tuned"] and not tunes:
        raise UserError(
            f"tuned={read.settings['tuned']}: only `peftbench sweep table=…` and `peftbench table` tune rows"
        )
    spec, settings = adapt(read.spec), read.settings
    _, prepared = _plan(spec, spec.prepare, read.given, read.found_in, [])
    configs, shown = _plan(spec, spec.rows, read.given, read.found_in, prepared)
    return TableRequest(
        spec=spec,
        planned=[*shown, *prepared],
        on_error=settings["on_error"],
        stale=settings["stale"],
        explain_spread=settings["explain_spread"],
        budget=None if settings["budget"] is None else duration("budget=", settings["budget"]),
        hydra=[line for line in argv if _is_hydra(line)],
        config=configs[0],
        command=command_of(argv),
    )


def command_of(argv: Sequence[str]) -> str:
    """Return the line to type for a table."""
    return f"peftbench sweep {shlex.join(line for line in argv if not _is_of(line, ('stale', 'on_error')))}"


def _with_looks(spec: TableSpec, argv: Sequence[str], settings: Mapping[str, Any]) -> TableSpec:
    """Return the table with the seeds that its rows may get, where it is to be decided by adding them."""
    if settings["until"] is None:
        if given := next((line for line in argv if key_of(line) in ("budget", "most_seeds")), None):
            raise UserError(f"{given} goes with until=decided")
        return spec
    if settings["until"] != "decided":
        raise UserError(f"until={settings['until']} is unknown: the only one is until=decided")
    if given := next((line for line in argv if key_of(line) == "seeds"), None):
        raise UserError(f"{given}: until=decided adds seeds where they are needed: leave it out, or say most_seeds=…")
    if settings["explain_spread"]:
        raise UserError("until=decided and explain_spread=true: ask for one at a time")
    most = settings["most_seeds"]
    if type(most) is not int or not 2 <= most <= _MOST_SEEDS:
        raise UserError(f"most_seeds={most} must be a whole number from 2 to {_MOST_SEEDS}")
    return replace(spec, seeds=list(range(most)), most_seeds=most)


def _plan(
    spec: TableSpec,
    rows: Iterable[RowSpec],
    given: Sequence[str],
    found_in: Sequence[str],
    prepared: Sequence[PlannedRun],
) -> tuple[list[RunConfig], list[PlannedRun]]:
    """Return a config of each row, and the runs of all; `run(LABEL)` in their overrides names one of the prepared."""
    there = {run.record_folder.absolute(): run.config for run in prepared}
    configs, planned = [], []
    for row in rows:
        overrides = merge(spec.base, given, row.overrides)
        composed: dict[tuple[str, ...], RunConfig] = {}
        shown = spec.evaluation_of(row)
        for seed in spec.seeds:
            lines = [_with_runs(line, row.label, seed, prepared) for line in overrides]
            if tuple(lines) not in composed:
                composed[tuple(lines)] = _composed(row.label, [*found_in, *lines])
            config = replace(composed[tuple(lines)], seed=seed)
            pinned, folders = possible_folders(config, there)
            lines.append(f"seed={seed}")
            planned.append(PlannedRun(row.label, seed, lines, pinned.plain(), folders[0], found_in, folders[1:], shown))
        configs.append(next(iter(composed.values())))
        if shown.merged:
            _check_mergeable(row.label, configs[-1].method_name)
        if shown.dropped_layers:
            _check_droppable(row.label, configs[-1].method_name)
        if shown.kept_adapters and shown.dropped_layers:
            raise UserError(f"row {row.label!r}: evaluation: kept_adapters stands alone: leave out dropped_layers")
        if shown.kept_adapters:
            _check_fusion(row.label, configs[-1])
    return configs, planned


def _with_runs(line: str, label: str, seed: int, prepared: Sequence[PlannedRun]) -> str:
    """Return an override with the folder of the prepared row's run of this seed in the place of each `run(LABEL)`."""
    folders = {run.label: run.record_folder for run in prepared if run.seed == seed}

    def folder(named: re.Match) -> str:
        if named[1] not in folders:
            raise UserError(f"row {label!r}: {line}: no row is prepared as {named[1]!r}. {nearest(named[1], folders)}")
        path = str(folders[named[1]])
        return path if _PLAIN.fullmatch(path) else json.dumps(path, ensure_ascii=False)

    return _RUN.sub(folder, line)


def _check_has_effect(line: str, spec: TableSpec) -> None:
    """Raise UserError for a setting that every row of the table sets to a value of its own."""
    key = key_of(line)
    if all(key in map(key_of, row.overrides) for row in spec.rows):
        raise UserError(
            f"{line}: every row of table {spec.name} sets {key} itself, so this changes nothing: leave it out"
        )


def _check_key(line: str) -> None:
    """Raise UserError for a misspelt setting of the sweep; those of the runs are checked where they are composed."""
    key = key_of(line)
    if key not in RunConfig.__dataclass_fields__ and difflib.get_close_matches(key, _OF_SWEEP, cutoff=0.7):
        raise UserError(f"{line}: there is no setting {key!r}. {nearest(key, _OF_SWEEP, most=1)}")


def merge(*groups: Iterable[str]) -> list[str]:
    """Join overrides, of which the later ones are stronger; each key keeps its first place."""
    strongest: dict[str, str] = {}
    for line in (line for group in groups for line in group):
        strongest[key_of(line)] = line
    return list(strongest.values())


def _composed(label: str, overrides: list[str]) -> RunConfig:
    try:
        return resolve(compose(overrides))
    except UserError as error:
        raise UserError(f"row {label!r}: {error}") from error


def _check_mergeable(label: str, method: str) -> None:
    from peftbench.methods import method_class

    if not method_class(method).mergeable:
        raise UserError(f"row {label!r}: evaluation.merged=true, but {method} cannot be merged into the weights")


def _check_droppable(label: str, method: str) -> None:
    from peftbench.serving.leave_out import droppable_methods

    if method not in droppable_methods():
        raise UserError(f"row {label!r}: evaluation.dropped_layers, but {method} has no layers to leave out")


def _check_fusion(label: str, config: RunConfig) -> None:
    from peftbench.methods.parts import PartsConfig

    if not isinstance(config.method, PartsConfig):
        raise UserError(f"row {label!r}: evaluation.kept_adapters, but {config.method_name} is no fusion")


def key_of(line: str) -> str:
    """Return the key that an override sets: `a.b` of `+a.b=1`."""
    return line.lstrip("+~").partition("=")[0]


def last_value(lines: Iterable[str], key: str) -> str | None:
    """Return what the last override of `key` sets, None where there is none."""
    values = [line.partition("=")[2] for line in lines if key_of(line) == key]
    return values[-1] if values else None


def launcher_name(hydra: Iterable[str]) -> str:
    """Return the launcher that the overrides for Hydra choose."""
    return last_value(hydra, "hydra/launcher") or "basic"


def _is_of(line: str, keys: Iterable[str]) -> bool:
    return key_of(line).split(".")[0] in keys


def _is_hydra(line: str) -> bool:
    return key_of(line).startswith(("hydra/", "hydra."))

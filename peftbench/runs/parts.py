"""The runs that a method is made of: found by what the user calls them, checked, and read."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import torch

from peftbench.config.schema import RunConfig
from peftbench.errors import UserError
from peftbench.files import expanded
from peftbench.methods.parts import PartsConfig, check_left_out
from peftbench.runs.adapter import read_tensors
from peftbench.runs.find import inspect_run, load_run
from peftbench.runs.identity import same_asset
from peftbench.runs.record import Record
from peftbench.runs.sources import adapter_digest

_LEAST = 2
# settings that a trained adapter does not depend on any more
_OF_TRAINING = {"init_std", "drop", "complexity"}
_EXAMPLE = "method.adapters={mrpc: RUN, rte: RUN}"


class LoadedPart(NamedTuple):
    """A run's id, the SHA-256 of its adapter, and its method's tensors by their names."""

    run: str
    digest: str
    tensors: dict[str, torch.Tensor]


def with_parts(config: RunConfig, planned: Mapping[Path, Mapping[str, Any]]) -> RunConfig:
    """Return the config with the runs that its method is made of: their folders, ids and common settings.

    Args:
        config: of any method; one that is made of no runs comes back as it is.
        planned: configs of runs, by their folders, that are not there yet.

    Raises UserError, naming the run, where one cannot be had or has not finished, where they are too few, the same, of
    another backbone or of different sizes.
    """
    method = config.method
    if not isinstance(method, PartsConfig):
        return config
    folders = _folders(method, Path(config.output_dir), planned)
    configs = {name: planned[path] if path in planned else _config(name, path) for name, path in folders.items()}
    if isinstance(method.adapters, str):
        folders, configs = _named_by_task(folders, configs)
    check_left_out(method.leave_out, folders)
    names = sorted(set(folders) - set(method.leave_out))
    if len(names) < _LEAST:
        raise UserError(f"method.adapters names {len(names) or 'no'} run{'s'[: not names]}: it takes {_LEAST} or more")
    _check_different({name: folders[name] for name in names})
    for name in names:
        if not same_asset(configs[name]["model"], asdict(config.model)):
            raise UserError(
                f"method.adapters: {name} was trained on {_shown(configs[name]['model'])}, this run is on"
                f" {_shown(asdict(config.model))}: adapters fit the backbone that they were trained on alone"
            )
    made = [_made_of(method, name, configs[name]["method"]) for name in names]
    _check_same_sizes(names, [part.adapter_method for part in made])
    where = {name: str(folders[name]) for name in names}
    runs = {name: folders[name].name for name in names}
    return replace(config, method=replace(made[0], adapters=where, leave_out=[], runs=runs))


def load_parts(config: RunConfig, weights: str) -> dict[str, LoadedPart]:
    """Read the adapters of the runs that a pinned config names; none for a method that is made of none.

    Args:
        weights: what tells the backbone's files from any other's.

    Raises UserError where one is damaged, or was trained on other weights.
    """
    if not isinstance(config.method, PartsConfig):
        return {}
    if not isinstance(config.method.adapters, dict):
        raise UserError(f"method.adapters names no runs: {_EXAMPLE}")
    parts = {}
    for name, folder in config.method.adapters.items():
        record = Record(Path(folder))
        result = record.read()
        record.check([record.adapter_dir.name], result)
        if result.origin and result.origin.weights not in (None, weights):
            raise UserError(f"method.adapters: {name} was trained on other weights than {config.model.name} has now")
        tensors = read_tensors(record.adapter_dir)
        method_tensors = {
            key.removeprefix("method."): tensor for key, tensor in tensors.items() if key.startswith("method.")
        }
        parts[name] = LoadedPart(result.id, adapter_digest(result), method_tensors)
    return parts


def _folders(method: PartsConfig, output_dir: Path, planned: Mapping[Path, Any]) -> dict[str, Path]:
    """Return where the runs lie, by their names; those of a pattern have their folders' names."""
    if not method.adapters:
        raise UserError(f"method.adapters names no runs: {_EXAMPLE}")
    if isinstance(method.adapters, str):
        paths = glob(str(expanded(method.adapters)), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
        found = [Path(path).absolute() for path in sorted(paths)]
        folders: dict[str, Path] = {}
        for path in found:
            if (path / "result.json").is_file():
                _check_other_run(method.adapters, folders.setdefault(path.name, path), path)
        if not folders:
            raise UserError(f"method.adapters={method.adapters} is the folder of no run: {_EXAMPLE}, or a pattern")
        return folders
    folders = {}
    for name, run in method.adapters.items():
        path = expanded(run).absolute()
        try:
            folders[name] = path if path in planned else load_run(run, output_dir).folder.absolute()
        except UserError as error:
            raise UserError(f"method.adapters: {name}: {error}") from error
    return folders


def _config(name: str, folder: Path) -> Mapping[str, Any]:
    """Return the config of a run that has finished, or was imported."""
    run = inspect_run(Record(folder))
    if run.result is None or not run.result.status.is_trained:
        reason = f" ({run.error})" if run.error else ""
        raise UserError(f"method.adapters: the run {name} ({run.id}) is {run.status}{reason}: train it first")
    return run.record.config()


def _shown(model: Mapping[str, Any]) -> str:
    files = (model.get("files") or {}).values()
    where = [model.get("path") or model.get("id"), model.get("revision"), *(digest[:8] for digest in files)]
    return f"{model['name']} ({', '.join(str(part) for part in where if part)})"


def _named_by_task(
    folders: dict[str, Path], configs: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Path], dict[str, Mapping[str, Any]]]:
    """Name the runs of a pattern after their tasks where those differ."""
    tasks = {name: str(configs[name]["task"]["name"]) for name in folders}
    names = tasks if len(set(tasks.values())) == len(tasks) else {name: name for name in folders}
    return {names[name]: path for name, path in folders.items()}, {names[name]: configs[name] for name in folders}


def _check_other_run(pattern: str, first: Path, other: Path) -> None:
    """Raise UserError where a pattern names another run by the id of one that it has named before."""
    if first.resolve() != other.resolve():
        raise UserError(
            f"method.adapters={pattern} names two runs {first.name}, in {first.parent} and {other.parent}: write"
            f" {_EXAMPLE}, or a pattern for one of them"
        )


def _check_different(folders: Mapping[str, Path]) -> None:
    known: dict[Path, str] = {}
    for name, folder in folders.items():
        real = folder.resolve()  # the same by way of a link, too
        if real in known:
            raise UserError(f"method.adapters: {known[real]} and {name} are the same run, {folder.name}")
        known[real] = name


def _made_of(method: PartsConfig, name: str, settings: Mapping[str, Any]) -> PartsConfig:
    try:
        return replace(method, adapter_method=dict(settings))
    except UserError as error:
        raise UserError(f"method.adapters: {name}: {error}") from error


def _check_same_sizes(names: list[str], settings: list[dict[str, Any]]) -> None:
    """Raise UserError where two runs' methods differ in more than how their tensors started."""
    for name, other in zip(names[1:], settings[1:], strict=True):
        for key in sorted({*settings[0], *other} - _OF_TRAINING):
            if settings[0].get(key) != other.get(key):
                raise UserError(
                    f"method.adapters: {names[0]} and {name} are of different sizes (method.{key} is"
                    f" {settings[0].get(key)} and {other.get(key)}): adapters of one kind and size can be fused"
                )

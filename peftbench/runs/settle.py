"""What a config leaves open comes to on this machine: the precision, and which model lies in a folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftbench.assets.cache import file_digest
from peftbench.assets.fetch import fetch
from peftbench.assets.weights import model_files
from peftbench.config.asset import ModelConfig
from peftbench.config.schema import RunConfig, TrainerConfig
from peftbench.errors import UserError
from peftbench.runs.identity import run_id

PRECISIONS = ("fp32", "bf16")


Planned = Mapping[Path, Mapping[str, Any]]


def settled(config: RunConfig, planned: Planned | None = None) -> RunConfig:
    """Return the config with all that decides the run's result, which is what its id is made of.

    `trainer.precision=auto` becomes fp32 or bf16; a model in a folder is known by the SHA-256 of its files; a method
    made of runs by their ids. `planned` are configs of runs, by their folders, that will be there.
    Raises UserError where there is no such folder, where it holds other files than a config from a record says, or
    where a run cannot be had or used.
    """
    from peftbench.runs.parts import with_parts

    config = replace(config, trainer=_with_precision(config), model=_with_files(config.model))
    return with_parts(config, planned or {})


def possible_folders(config: RunConfig, planned: Planned | None = None) -> tuple[RunConfig, list[Path]]:
    """Return the config as settled here, and where the run's record may lie, the likeliest first.

    Where the precision is auto, another machine may have trained the run in the other one. Where the model's folder
    is gone the config stays as it is: nothing is found then, and training says why. `planned` is as for `settled`.
    """
    precisions = [config.trainer.precision]
    if precisions == ["auto"]:
        precisions = sorted(PRECISIONS, key=lambda precision: precision != _with_precision(config).precision)
    try:
        config = settled(config, planned)
    except UserError:
        config = replace(config, trainer=_with_precision(config))
    home = Path(config.output_dir) / config.experiment
    others = [replace(config, trainer=replace(config.trainer, precision=precision)) for precision in precisions]
    return config, [home / run_id(other.plain()) for other in others]


def _with_precision(config: RunConfig) -> TrainerConfig:
    from peftbench.training.devices import choose_device, resolve_precision

    precision = resolve_precision(config.trainer.precision, choose_device(config.device))
    return replace(config.trainer, precision=precision)


def _with_files(model: ModelConfig) -> ModelConfig:
    if model.source != "local":
        return model
    folder = fetch(model)
    files = {path.name: file_digest(path) for path in model_files(folder)}
    if model.files and model.files != files:
        other = sorted(name for name in {*files, *model.files} if files.get(name) != model.files.get(name))
        raise UserError(
            f"{folder} holds another model than the run was trained on (its {other[0]} differs): put the old one back,"
            " or train on the new one"
        )
    return replace(model, files=files)

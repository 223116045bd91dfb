"""Filling in what a config leaves to the machine: the precision, and which model lies in a folder."""

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
from peftbench.files import parse_json
from peftbench.runs.identity import run_id

PRECISIONS = ("fp32", "bf16")
# what the number of layers is called, by family
_LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers")

Planned = Mapping[Path, Mapping[str, Any]]


def pin_config(config: RunConfig, planned: Planned | None = None) -> RunConfig:
    """Return the config with what only this machine knows filled in; the run id is made of the result.

    `trainer.precision=auto` becomes fp32 or bf16; a model in a folder gets the SHA-256 of its files; a method made of
    other runs gets their ids; `method.layers` gets one spelling where the model's number of layers is known.

    Args:
        config: as `config.schema.resolve` made it.
        planned: configs of runs that are not there yet but will be, by their folders.

    Raises UserError where the model's folder is gone or holds other files than a record's config says, and where a run
    that the method is made of cannot be had or used.
    """
    from peftbench.runs.parts import with_parts

    config = replace(config, trainer=_with_precision(config), model=_with_files(config.model))
    return with_parts(_with_layers(config), planned or {})


def possible_folders(config: RunConfig, planned: Planned | None = None) -> tuple[RunConfig, list[Path]]:
    """Return the config pinned on this machine, and the folders where the run's record may lie, the likeliest first.

    Where the precision is auto there are two, for another machine may have trained the run in the other one. Where the
    model's folder is gone only the precision is pinned: no record is found then, and training says why. `planned` is
    as for `pin_config`.
    """
    precisions = [config.trainer.precision]
    if precisions == ["auto"]:
        precisions = sorted(PRECISIONS, key=lambda precision: precision != _with_precision(config).precision)
    try:
        config = pin_config(config, planned)
    except UserError:
        config = replace(config, trainer=_with_precision(config))
    home = Path(config.output_dir) / config.experiment
    others = [replace(config, trainer=replace(config.trainer, precision=precision)) for precision in precisions]
    return config, [home / run_id(other.plain()) for other in others]


def _with_precision(config: RunConfig) -> TrainerConfig:
    from peftbench.training.devices import choose_device, resolve_precision

    precision = resolve_precision(config.trainer.precision, choose_device(config.device))
    return replace(config.trainer, precision=precision)


def _with_layers(config: RunConfig) -> RunConfig:
    from peftbench.methods.bottleneck import BottleneckConfig, canonical_layers

    count = layer_count(config.model)
    if count is None or not isinstance(config.method, BottleneckConfig):
        return config
    return replace(config, method=replace(config.method, layers=canonical_layers(config.method.layers, count)))


def layer_count(model: ModelConfig) -> int | None:
    """Return how many layers a model has by its config, or that of its folder; None where neither tells."""
    numbers: Any = model.architecture
    if model.source == "local":
        try:
            numbers = parse_json((fetch(model) / "config.json").read_bytes())
        except (OSError, ValueError):  # which loading it says better
            return None
    counts = [numbers[key] for key in _LAYER_COUNTS if isinstance(numbers, Mapping) and key in numbers]
    return counts[0] if counts and type(counts[0]) is int and counts[0] > 0 else None


def check_layer_count(config: RunConfig, found: int) -> None:
    """Raise UserError where a model has another number of layers than its config said when `method.layers` was read."""
    from peftbench.methods.bottleneck import BottleneckConfig

    count = layer_count(config.model)
    if isinstance(config.method, BottleneckConfig) and count not in (None, found):
        where = "its config.json" if config.model.source == "local" else "model.architecture"
        raise UserError(f"{config.model.name} has {found} layers, and {where} says {count}: correct it there")


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

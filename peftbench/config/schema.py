"""The schema of every config group, and the one place where values are checked.

Hydra composes plain YAML; `resolve` turns it into these dataclasses or raises UserError. Importing this file
needs no torch.
"""

from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from peftbench.errors import UserError, nearest


@dataclass
class AssetConfig:
    """Where a model or a data set comes from; see `peftbench.assets.fetch`."""

    name: str
    source: str
    id: str | None = None
    subset: str | None = None
    revision: str | None = None
    packages: list[dict[str, str]] = field(default_factory=list)
    folder: str | None = None
    archive: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    path: str | None = None


@dataclass
class ModelConfig(AssetConfig):
    """A backbone. `dropout` replaces the model's own rates; None keeps them."""

    architecture: dict[str, Any] = field(default_factory=dict)
    dropout: float | None = None

    def __post_init__(self) -> None:
        _one_of("model.source", self.source, ("hub", "pypi", "local"))
        self.path = _absolute(self.path)
        if self.dropout is not None:
            _between("model.dropout", self.dropout, 0, 0.99)


@dataclass
class TaskConfig(AssetConfig):
    """A data set with its columns, classes and metrics (the first is the primary one)."""

    dir: str | None = None
    text: list[str] = field(default_factory=list)
    label: str = "label"
    labels: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    splits: dict[str, Any] = field(default_factory=dict)
    max_length: int = 128
    threshold: float | None = None

    def __post_init__(self) -> None:
        _one_of("task.source", self.source, ("glue", "hub", "pypi", "local"))
        _at_least("task.max_length", self.max_length, 4)
        self.dir = _absolute(self.dir)
        if self.source == "local":
            self.splits = {name: _absolute(path) for name, path in self.splits.items()}
        if not self.metrics:
            raise UserError("task.metrics is empty: name at least one, e.g. task.metrics=[accuracy]")


@dataclass
class TrainerConfig:
    """Settings of the one training loop; see conf/trainer/default.yaml."""

    epochs: int
    lr: float
    batch_size: int
    eval_batch_size: int
    accumulate: int
    weight_decay: float
    betas: list[float]
    schedule: str
    warmup: float
    clip: float | None
    patience: int
    precision: str
    compile: bool

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size", "accumulate"):
            _at_least(f"trainer.{name}", getattr(self, name), 1)
        for name in ("lr", "weight_decay", "patience"):
            _at_least(f"trainer.{name}", getattr(self, name), 0)
        _between("trainer.warmup", self.warmup, 0, 1)
        _one_of("trainer.schedule", self.schedule, ("linear", "cosine", "constant"))
        _one_of("trainer.precision", self.precision, ("auto", "fp32", "bf16"))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"trainer.betas={self.betas} must be two numbers from 0 up to, not including, 1")
        if self.clip is not None and self.clip <= 0:
            raise UserError(f"trainer.clip={self.clip:g} must be above 0, or null for no clipping")


@dataclass
class LoggerConfig:
    """Where a run is logged besides its record."""

    name: str
    project: str = "peftbench"
    entity: str | None = None
    mode: str = "auto"

    def __post_init__(self) -> None:
        _one_of("logger.name", self.name, ("none", "wandb"))
        _one_of("logger.mode", self.mode, ("auto", "online", "offline", "disabled"))


@dataclass
class MeasureConfig:
    """What is measured behind training, and for how long."""

    latency: bool
    seconds: float
    batches: list[int]
    lengths: list[int]
    training_step: bool = False
    switching: bool = False

    def __post_init__(self) -> None:
        _at_least("measure.seconds", self.seconds, 0)
        for name in ("batches", "lengths"):
            for value in getattr(self, name):
                _at_least(f"measure.{name}", value, 1)


@dataclass
class RunConfig:
    """Everything one run needs, checked. `method` is the config dataclass of the method `method_name`."""

    method_name: str
    method: Any
    model: ModelConfig
    task: TaskConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    measure: MeasureConfig
    seed: int
    device: str
    threads: int | None
    experiment: str
    output_dir: str
    force: bool

    def __post_init__(self) -> None:
        _at_least("seed", self.seed, 0)
        if self.threads is not None:
            _at_least("threads", self.threads, 1)
        for letter in "/\\":
            if letter in self.experiment:
                raise UserError(f"experiment={self.experiment} is a folder's name: it takes no {letter!r}")

    def plain(self) -> dict[str, Any]:
        """Return the whole config as plain data, the method's name among its settings."""
        flat = asdict(self)
        flat["method"] = {"name": flat.pop("method_name"), **flat["method"]}
        return flat


def resolve(composed: DictConfig) -> RunConfig:
    """Turn what Hydra composed (or what a record holds) into a checked `RunConfig`.

    Raises UserError for a missing value, a wrong type or a value out of range.
    """
    from peftbench.methods import method_class

    try:
        raw: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a value"
        raise UserError(f"{key} has no value: set it, e.g. {key}=…") from error
    known = {"method", *RunConfig.__dataclass_fields__} - {"method_name"}
    for key in raw:
        if key not in known:
            raise UserError(f"there is no setting {key!r}. {nearest(key, known)}")
    method = dict(raw["method"])
    method.pop("recipe", None)
    name = method.pop("name")
    return RunConfig(
        method_name=name,
        method=fill(method_class(name).config_class, method, "method"),
        model=fill(ModelConfig, raw["model"], "model"),
        task=fill(TaskConfig, raw["task"], "task"),
        trainer=fill(TrainerConfig, raw["trainer"], "trainer"),
        logger=fill(LoggerConfig, raw["logger"], "logger"),
        measure=fill(MeasureConfig, raw["measure"], "measure"),
        **{
            key: _typed(RunConfig, key, raw[key], key)
            for key in ("seed", "device", "threads", "experiment", "output_dir", "force")
        },
    )


def fill(cls: type, values: dict[str, Any], group: str) -> Any:
    """Build the dataclass `cls` from plain values of the config group `group`, each converted to its type."""
    assert is_dataclass(cls)
    names = cls.__dataclass_fields__
    for key in values:
        if key not in names:
            raise UserError(f"{group} has no key {key!r}. {nearest(key, names)}")
    return cls(**{key: _typed(cls, key, value, f"{group}.{key}") for key, value in values.items()})


def _typed(cls: type, key: str, value: Any, shown: str) -> Any:
    """Convert one value to the type of the field `key` of `cls`, as OmegaConf does (`"3"` is an int, `1` a float)."""
    if value is None and "None" in str(cls.__dataclass_fields__[key].type):  # type: ignore[attr-defined]
        return None
    schema = OmegaConf.structured(cls)
    OmegaConf.set_readonly(schema, False)
    try:
        schema[key] = value
        typed = schema[key]
    except OmegaConfBaseException as error:
        wanted = cls.__dataclass_fields__[key].type  # type: ignore[attr-defined]
        wanted = getattr(wanted, "__name__", str(wanted))
        raise UserError(f"{shown}={value} is not of type {wanted}") from error
    return OmegaConf.to_container(typed) if OmegaConf.is_config(typed) else typed


def _absolute(path: str | None) -> str | None:
    """Write a path so that a later command finds it from any folder."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise UserError(f"{name}={value:g} must be {least:g} or more")


def _between(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise UserError(f"{name}={value:g} must lie in {least:g} … {most:g}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name}={value} is unknown: choose from {', '.join(choices)}")

"""The schema of every config group, and the one place where values are checked.

Hydra composes plain YAML; `resolve` turns it into these dataclasses or raises UserError. A record's config, which may
be somebody else's, goes the same way, but nothing in it is resolved. Importing this file needs no torch.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from peftbench.config.ranges import at_least, between, one_of
from peftbench.config.sources import check_source
from peftbench.config.values import typed
from peftbench.errors import UserError, nearest

GROUPS = ("method", "model", "task", "trainer", "logger", "measure")
MAX_SEED = 2**32 - 1  # numpy, torch and Python all take it


@dataclass
class AssetConfig:
    """Where a model or a data set comes from; see `peftbench.assets`."""

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
        one_of("model.source", self.source, ("hub", "pypi", "local"))
        check_source(self, "model")
        self.path = _absolute(self.path)
        if self.dropout is not None:
            between("model.dropout", self.dropout, 0, 0.99)


@dataclass
class TaskConfig(AssetConfig):
    """A data set with its columns, classes and metrics (the first is the primary one).

    `ceiling` says, by metric, what human judges score who are no surer than that; tables show it.
    """

    dir: str | None = None
    text: list[str] = field(default_factory=list)
    label: str = "label"
    labels: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    splits: dict[str, Any] = field(default_factory=dict)
    max_length: int = 128
    threshold: float | None = None
    ceiling: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("task.source", self.source, ("glue", "hub", "pypi", "local"))
        check_source(self, "task")
        if len(self.text) not in (1, 2):
            raise UserError(
                f"task.text has {len(self.text)} columns: name one, or two for pairs, e.g. task.text=[text]"
            )
        if len({*self.text, self.label}) <= len(self.text):
            raise UserError(f"task.text={self.text} and task.label={self.label} must be different columns")
        at_least("task.max_length", self.max_length, 4)
        self.dir = _absolute(self.dir)
        self.splits = {name: _source_of_split(name, value, self.source) for name, value in self.splits.items()}
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
    # records of before these settings lack them
    max_steps: int | None = None
    checkpointing: bool = False
    cache_frozen: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size", "accumulate", "max_steps"):
            if getattr(self, name) is not None:
                at_least(f"trainer.{name}", getattr(self, name), 1)
        for name in ("weight_decay", "patience"):
            at_least(f"trainer.{name}", getattr(self, name), 0)
        if self.lr <= 0:
            raise UserError(f"trainer.lr={self.lr:g} must be above 0")
        between("trainer.warmup", self.warmup, 0, 1)
        one_of("trainer.schedule", self.schedule, ("linear", "cosine", "constant"))
        one_of("trainer.precision", self.precision, ("auto", "fp32", "bf16"))
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
        one_of("logger.name", self.name, ("none", "wandb"))
        one_of("logger.mode", self.mode, ("auto", "online", "offline", "disabled"))


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
        at_least("measure.seconds", self.seconds, 0)
        for name in ("batches", "lengths"):
            for value in getattr(self, name):
                at_least(f"measure.{name}", value, 1)


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
        check_seed("seed", self.seed)
        if self.threads is not None:
            at_least("threads", self.threads, 1)
        for letter in "/\\\0":
            if letter in self.experiment:
                raise UserError(f"experiment={self.experiment!r} is a folder's name: it takes no {letter!r}")
        if self.experiment in ("", ".", ".."):
            raise UserError(f"experiment={self.experiment!r} is no folder's name")

    def plain(self) -> dict[str, Any]:
        """Return the whole config as plain data, the method's name among its settings."""
        flat = asdict(self)
        flat["method"] = {"name": flat.pop("method_name"), **flat["method"]}
        return flat


def resolve(composed: DictConfig | Mapping[str, Any]) -> RunConfig:
    """Turn what Hydra composed, or the plain data that a record holds, into a checked `RunConfig`.

    Interpolations are resolved in what was composed here; those of a record stay text.

    Raises UserError for a missing value, a wrong type or a value out of range.
    """
    from peftbench.methods import method_class

    raw: Any = composed
    if isinstance(composed, DictConfig):
        try:
            raw = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            raise UserError(f"{error.full_key} has no value: set it, e.g. {error.full_key}=…") from error
        except OmegaConfBaseException as error:
            raise UserError(f"{error.full_key or 'a value'}: {str(error).splitlines()[0]}") from error
    known = {"method", *RunConfig.__dataclass_fields__} - {"method_name"}
    for key in raw:
        if key not in known:
            raise UserError(f"there is no setting {key!r}. {nearest(key, known)}")
    for key in known:
        if key not in raw:
            raise UserError(f"the config lacks {key!r}")
    groups = {
        group: _as_group(raw[group], group) for group in ("method", "model", "task", "trainer", "logger", "measure")
    }
    for key in ("text", "metrics"):
        if isinstance(groups["task"].get(key), str):  # task.text="Review Text" is one column
            groups["task"][key] = [groups["task"][key]]
    method = groups["method"]
    method.pop("recipe", None)
    name = str(method.pop("name", None))
    return RunConfig(
        method_name=name,
        method=fill(method_class(name).config_class, method, "method"),
        model=fill(ModelConfig, groups["model"], "model"),
        task=fill(TaskConfig, groups["task"], "task"),
        trainer=fill(TrainerConfig, groups["trainer"], "trainer"),
        logger=fill(LoggerConfig, groups["logger"], "logger"),
        measure=fill(MeasureConfig, groups["measure"], "measure"),
        **{
            key: typed(RunConfig, key, raw[key], key)
            for key in ("seed", "device", "threads", "experiment", "output_dir", "force")
        },
    )


def _as_group(value: Any, group: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{group}={value} must have keys and values")
    return dict(value)


def fill(cls: type, values: Any, group: str) -> Any:
    """Build the dataclass `cls` from plain values of the config group `group`, each converted to its type.

    Raises UserError for an unknown or missing key, a wrong type or a value out of range.
    """
    assert is_dataclass(cls)
    names = {name: field for name, field in cls.__dataclass_fields__.items() if field.init}
    required = [name for name, field in names.items() if field.default is MISSING and field.default_factory is MISSING]
    values = _as_group(values, group)
    for name in required:
        if name not in values:
            raise UserError(f"{group} lacks {name!r}: set {group}.{name}=…")
    for key in values:
        if key not in names:
            raise UserError(f"{group} has no key {key!r}. {nearest(key, names)}")
    return cls(**{key: typed(cls, key, value, f"{group}.{key}") for key, value in values.items()})


def check_seed(name: str, seed: int) -> None:
    """Raise UserError for a seed that not all random generators take."""
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"{name}={seed} must lie in 0 … {MAX_SEED}")


def check_threads(threads: int | None) -> None:
    """Raise UserError where there are fewer cores; only the machine that runs it can tell."""
    cores = os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise UserError(
            f"threads={threads} is more than this machine's {cores} cores: choose {cores} or fewer, or null"
        )


def _absolute(path: str | None) -> str | None:
    """Write a path so that a later command finds it from any folder."""
    return None if path is None else str(Path(path).expanduser().absolute())


def _source_of_split(split: str, value: Any, source: str) -> str | float | None:
    """Return a split's file or its name in the source, or the share of the training data that it is."""
    if isinstance(value, bool | int | float):
        if split == "train" or isinstance(value, bool) or not 0 < value < 1:
            raise UserError(
                f"task.splits.{split}={value} must be a file"
                + ("" if split == "train" else ", or a share of the training data between 0 and 1, such as 0.2")
            )
        return float(value)
    return _absolute(value) if source == "local" else value

"""The schema of every config group, and the one place where values are checked.

Hydra composes plain YAML; `resolve` turns it into these dataclasses or raises UserError. A record's config, which may
be somebody else's, goes the same way, but nothing in it is resolved. Importing this file needs no torch.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from peftbench.config.asset import ModelConfig
from peftbench.config.fill import as_group, fill
from peftbench.config.groups import BESIDE_SETTINGS
from peftbench.config.ranges import at_least, between, one_of
from peftbench.config.task import TaskConfig, fill_task
from peftbench.config.values import typed
from peftbench.errors import UserError, nearest

GROUPS = ("method", "model", "task", "trainer", "logger", "measure")
MAX_SEED = 2**32 - 1  # numpy, torch and Python all take it


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
            if not getattr(self, name):
                raise UserError(f"measure.{name} is empty: name at least one, or set measure.latency=false")
            for value in getattr(self, name):
                at_least(f"measure.{name}", value, 1)


@dataclass
class SeedsConfig:
    """Seeds of one source of chance each; None follows the run's seed."""

    init: int | None = None
    order: int | None = None
    dropout: int | None = None

    def __post_init__(self) -> None:
        for name, seed in vars(self).items():
            check_seed(f"seed_of.{name}", seed or 0)

    @property
    def given(self) -> dict[str, int]:
        """Those that do not follow the run's seed."""
        return {name: seed for name, seed in vars(self).items() if seed is not None}


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
    seed_of: SeedsConfig = field(default_factory=SeedsConfig)

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        if self.threads is not None:
            at_least("threads", self.threads, 1)
        for letter in "/\\\0":
            if letter in self.experiment:
                raise UserError(f"experiment={self.experiment!r} is a folder's name: it takes no {letter!r}")
        if self.experiment in ("", ".", ".."):
            raise UserError(f"experiment={self.experiment!r} is no folder's name")

    def seed_for(self, source: str) -> int:
        """Return the seed of a source of chance: init, order or dropout."""
        return self.seed_of.given.get(source, self.seed)

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
    for key in known - {"seed_of"}:  # which older records have not
        if key not in raw:
            raise UserError(f"the config lacks {key!r}")
    groups = {group: as_group(raw[group], group) for group in GROUPS}
    method = groups["method"]
    for beside in BESIDE_SETTINGS:
        method.pop(beside, None)
    groups["task"].pop("recipe", None)
    name, task = str(method.pop("name", None)), fill_task(groups["task"])
    if task.examples not in (modalities := method_class(name).modalities):
        raise UserError(
            f"method={name} is for {modalities[0]}, and task={task.name} has {task.examples}: choose another method or"
            " task"
        )
    return RunConfig(
        method_name=name,
        method=fill(method_class(name).config_class, method, "method"),
        model=fill(ModelConfig, groups["model"], "model"),
        task=task,
        trainer=fill(TrainerConfig, groups["trainer"], "trainer"),
        logger=fill(LoggerConfig, groups["logger"], "logger"),
        measure=fill(MeasureConfig, groups["measure"], "measure"),
        seed_of=fill(SeedsConfig, as_group(raw.get("seed_of", {}), "seed_of"), "seed_of"),
        **{
            key: typed(RunConfig, key, raw[key], key)
            for key in ("seed", "device", "threads", "experiment", "output_dir", "force")
        },
    )


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

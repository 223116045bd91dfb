"""What `result.json` says of a run, as dataclasses: schema version 2."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from peftbench.files import is_number

SCHEMA_VERSION = 2


class Status(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    OOM = "oom"
    INTERRUPTED = "interrupted"
    IMPORTED = "imported"

    @property
    def is_trained(self) -> bool:
        """Whether there is a trained adapter, made here or elsewhere."""
        return self in (Status.FINISHED, Status.IMPORTED)


@dataclass(frozen=True)
class Evaluation:
    """Scores of the trained model on one split, under one set of conditions.

    Attributes:
        split: of the task. examples: how many it has. metrics: by name, `loss` among them; None: not a number.
        precision: the forward pass' (fp32 or bf16). data: checksum of the split that was scored.
        merged: whether the method was folded into the backbone's weights. dropped_layers: of the backbone, from
            the first on, that went without the method.
        predictions: the file that holds them, relative to the run's folder; None where they were not kept.
        by_class: what `Objective.by_class` returned (tasks/base.py): {names, f1, confusion} for classes,
            {names, iou, confusion} for masks, {names, ap, ap50} for boxes; None for a regression.
        latency: with layers or adapters left out, as `measuring.latency` gives it; None where it was not measured.
        observed: what the method said of these examples, see `methods.Method.observed`; None for nothing.
        kept_adapters: how many adapters a fusion had at each place, those that weigh most; None: all.
    """

    split: str
    examples: int
    metrics: dict[str, float | None]
    precision: str
    data: str
    merged: bool = False
    dropped_layers: int = 0
    predictions: str | None = None
    by_class: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    observed: dict[str, Any] | None = None
    kept_adapters: int | None = None

    @property
    def conditions(self) -> tuple[Any, ...]:
        """What tells two evaluations of a run apart."""
        return self.split, self.merged, self.dropped_layers, self.kept_adapters, self.precision, self.data

    @property
    def left_out(self) -> list[str]:
        """What was left out of the method, see the function `left_out`; empty for the whole method."""
        return left_out(self.dropped_layers, self.kept_adapters)


def left_out(dropped_layers: int, kept_adapters: int | None) -> list[str]:
    """Return what was left out of the method in an evaluation, for names of files: `drop3`, `keep2`, or nothing."""
    return [
        *([f"drop{dropped_layers}"] if dropped_layers else []),
        *([f"keep{kept_adapters}"] if kept_adapters else []),
    ]


@dataclass(frozen=True)
class Parameters:
    """Parameter counts; shares are fractions. See `measuring.parameters`."""

    method: int
    closed_form: int
    head: int
    backbone: int
    total: int
    share_method: float
    share_trained: float


@dataclass(frozen=True)
class Times:
    """Seconds: in all, of training (evaluation left out), of each epoch, until the process' first step."""

    total: float
    train: float
    per_epoch: list[float]
    examples_per_second: float
    startup: float | None = None


@dataclass(frozen=True)
class Memory:
    """Peak memory in bytes; None where it was not measured."""

    device_peak: int | None = None
    host_peak: int | None = None


@dataclass(frozen=True)
class Section:
    """Something measured behind training: its figures, or why there are none; neither where it was not asked for."""

    result: dict[str, Any] | None = None
    error: str | None = None

    def __bool__(self) -> bool:
        return self.result is not None


@dataclass(frozen=True)
class SourceRun:
    """A run that another was made of: its id, and the SHA-256 of the adapter that went in."""

    run: str
    adapter: str


@dataclass(frozen=True)
class Origin:
    """What a run was made from besides its config.

    Attributes:
        data: checksum of the task's splits together. splits: of each.
        code: digest of the code that decides a result, see `runs.origin.code_digest`; modules: those it is taken
            from, none where that is not known any more.
        weights: what tells the backbone's files from any other's, see `assets.weights.weights_digest`.
        parts: the runs it was made of, by their names in the config.
    """

    data: str
    code: str
    modules: list[str] = field(default_factory=list)
    weights: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    parts: dict[str, SourceRun] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """The machine and the versions a run was trained with; `device_type` is cpu or cuda, `device` the model."""

    versions: dict[str, str]
    device: str
    device_type: str
    threads: int
    precision: str
    git_commit: str | None = None


@dataclass(frozen=True)
class Imported:
    """Where a run comes from that was not trained here: whose format, which folder, the digest of its files."""

    library: str
    folder: str
    digest: str


SECTIONS = ("latency", "training_step", "switching")


@dataclass(frozen=True)
class Result:
    """What is known of a run; a run that has not finished lacks what is None.

    Attributes:
        primary: the metric a run is judged by. best_epoch: the epoch with its highest value on validation, and
            best its metrics there.
        evaluations: the run's own at the end of training, and those of `peftbench evaluate`.
        files: SHA-256 of the record's files by their path in the run's folder.
    """

    status: Status
    id: str
    experiment: str
    method: str
    task: str
    model: str
    seed: int
    started: str
    finished: str | None = None
    error: str | None = None
    overrides: list[str] = field(default_factory=list)
    host: str | None = None
    pid: int | None = None
    origin: Origin | None = None
    environment: Environment | None = None
    primary: str | None = None
    best_epoch: int | None = None
    best: dict[str, float | None] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    parameters: Parameters | None = None
    time: Times | None = None
    memory: Memory | None = None
    latency: Section = Section()
    training_step: Section = Section()
    switching: Section = Section()
    imported: Imported | None = None
    files: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def evaluation(
        self,
        split: str = "validation",
        merged: bool = False,
        dropped_layers: int = 0,
        kept_adapters: int | None = None,
    ) -> Evaluation | None:
        """Return the evaluation under these conditions, None where there is none.

        Its precision is the one that the run was trained in; its data are those of the first evaluation of this
        split, which is the run's own.
        """
        precision = self.environment.precision if self.environment else None
        data = next((found.data for found in self.evaluations if found.split == split), None)
        asked = (split, merged, dropped_layers, kept_adapters, precision, data)
        return next((found for found in self.evaluations if found.conditions == asked), None)

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The metrics of each split that was scored under the run's usual conditions."""
        found = {split: self.evaluation(split) for split in dict.fromkeys(e.split for e in self.evaluations)}
        return {split: evaluation.metrics for split, evaluation in found.items() if evaluation is not None}

    def section(self, name: str) -> Section:
        """Return what was measured under one of the names in `SECTIONS`."""
        section: Section = getattr(self, name)
        return section

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data, as it stands in the file."""
        return asdict(self)


def read_as(cls: type, value: Any, where: str) -> Any:
    """Build the dataclass `cls` from plain data; keys it does not know are left out.

    Raises ValueError, naming the place, for a missing key and a value of another type.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is no object")
    hints = get_type_hints(cls)
    given = {
        entry.name: _typed(hints[entry.name], value[entry.name], f"{where}.{entry.name}")
        for entry in fields(cls)
        if entry.name in value
    }
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _typed(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else _typed(options[0], value, where)
    if is_dataclass(kind):
        return read_as(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is list and isinstance(value, list):
        return [_typed(get_args(kind)[0], entry, f"{where}[{number}]") for number, entry in enumerate(value)]
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return {str(key): _typed(get_args(kind)[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if kind is Any:
        return value
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if kind is float and is_number(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where} holds {str(value)[:40]!r}")

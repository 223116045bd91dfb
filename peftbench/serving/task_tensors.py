"""The tensors of registered tasks: read when they are asked for, kept as long as there is room, stacked for a pass."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from peftbench.backbones.heads import HeadedBackbone
from peftbench.config.fill import fill
from peftbench.config.schema import TrainerConfig
from peftbench.config.task import fill_text_task
from peftbench.errors import UserError
from peftbench.methods import Method, method_class
from peftbench.methods.stacking import stacked, with_tensors
from peftbench.runs.adapter import build_described, check_shapes, read_tensors
from peftbench.runs.record import Record
from peftbench.serving.load import describe_run
from peftbench.serving.mixable import Way, find_way, shares_layers
from peftbench.serving.mixing import Mixer, Tensors
from peftbench.serving.resident import Resident
from peftbench.tasks.text.read import blank_task


class RegisteredTask:
    """What is known of a task before its tensors are asked for.

    Attributes:
        columns: names of its text columns, one or two.
        outputs: width of its head.
        kind: its method and settings: tasks of one kind differ in their tensors alone.
        model: the name of its backbone, `backbone` what tells it from any other.
        precision: that it was trained and scored in.
    """

    def __init__(self, name: str, record: Record) -> None:
        """Read the record; UserError where it has not finished or is damaged."""
        self.name, self.record = name, record
        self.description = describe_run(record)
        method = str(self.description.method["name"])
        if method_class(method).answers_through != "classifier":
            raise UserError(
                f"run {record.folder.name} is of method {method}, which answers through what its model was"
                " pretrained under and not a classifier that tasks can share: ask it by itself"
            )
        config = fill_text_task(self.description.task)
        self.task = blank_task(config, self.description.labels)
        self.columns = list(config.text)
        self.outputs = self.task.objective.num_outputs
        self.kind = json.dumps(self.description.method, sort_keys=True)
        self.precision: str = fill(TrainerConfig, record.config().get("trainer"), "trainer").precision
        self.model = self.description.model.get("name")
        origin = record.read().origin
        settings = {key: value for key, value in self.description.model.items() if key != "dropout"}
        self.backbone = (origin and origin.weights) or json.dumps(settings, sort_keys=True)


class Kind(NamedTuple):
    """A method without tensors, their shapes, the lowest layer it changes, and how it shares a pass (see `Mixable`)."""

    prototype: Method
    shapes: dict[str, torch.Size]
    first_layer: int
    way: Way
    grows: float


class Loaded(NamedTuple):
    """A task's method and head with their tensors."""

    method: Method
    head: Tensors


class TaskTensors:
    """Methods and heads for passes of one mixer, their tensors in at most `memory` bytes and one pass's more."""

    def __init__(self, mixer: Mixer, memory: int, read: Callable[[RegisteredTask], Tensors]) -> None:
        """Hold nothing yet; `read` gives a task's tensors, `method.NAME` and `head.NAME`, when they are needed."""
        self.mixer, self._read = mixer, read
        self._kinds: dict[str, Kind] = {}
        self._loaded: Resident[Loaded] = Resident(memory // 2)
        self._stacked: Resident[Any] = Resident(memory // 2)

    @property
    def backbone(self) -> HeadedBackbone:
        """The backbone under a head as wide as the widest of all tasks."""
        return self.mixer.backbone

    @property
    def outputs(self) -> int:
        """How wide that head is."""
        config: Any = self.backbone.model.config
        return int(config.num_labels)

    def kind(self, task: RegisteredTask) -> Kind:
        """Return what a task's method is without its tensors."""
        if task.kind not in self._kinds:
            sites = self.backbone.sites
            with torch.random.fork_rng(devices=[]):
                prototype = build_described(task.description, sites)
            prototype.to(sites.device).requires_grad_(False)
            found = find_way(prototype, self.mixer)
            shapes = {f"method.{name}": tensor.shape for name, tensor in prototype.state_dict().items()}
            self._kinds[task.kind] = Kind(prototype.to("meta"), shapes, prototype.first_layer(sites), *found)
        return self._kinds[task.kind]

    @cached_property
    def shares_layers(self) -> bool:
        """Whether equal rows may pass the layers once that no method acts in."""
        return shares_layers(self.mixer)

    def fits(self, task: RegisteredTask, longest: int) -> bool:
        """Tell whether a task's rows can share a pass with others, the longest of `longest` tokens."""
        kind = self.kind(task)
        return kind.way != Way.ALONE and longest + kind.prototype.inserted_tokens <= self.backbone.sites.positions

    def method(self, tasks: Sequence[RegisteredTask]) -> Method:
        """Return the method of some tasks of one kind, with their tensors, stacked where there are several."""
        methods = [self._load(task).method for task in tasks]
        if len(methods) == 1:
            return methods[0]

        def make() -> tuple[Method, int]:
            kind = self.kind(tasks[0])
            made = stacked(kind.prototype, [method.state_dict() for method in methods])
            return made, int(kind.grows * _bytes(made.state_dict()))

        found: Method = self._stacked.get(("method", *(task.name for task in tasks)), make)
        return found

    def head(self, tasks: Sequence[RegisteredTask]) -> Tensors:
        """Return the heads' tensors of some tasks, stacked where there are several."""
        heads = [self._load(task).head for task in tasks]
        if len(heads) == 1:
            return heads[0]

        def make() -> tuple[Tensors, int]:
            made = {name: torch.stack([head[name] for head in heads]) for name in heads[0]}
            return made, _bytes(made)

        found: Tensors = self._stacked.get(("head", *(task.name for task in tasks)), make)
        return found

    def _load(self, task: RegisteredTask) -> Loaded:
        return self._loaded.get(task.name, lambda: self._fitted(task))

    def _fitted(self, task: RegisteredTask) -> tuple[Loaded, int]:
        kind = self.kind(task)
        tensors = {name: self._widened(name, tensor, task) for name, tensor in self._read(task).items()}
        shapes = {f"head.{name}": parameter.shape for name, parameter in self.backbone.head.items()}
        check_shapes(task.record.adapter_dir, tensors, kind.shapes | shapes)
        device = self.backbone.sites.device
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        method = with_tensors(kind.prototype, _part(tensors, "method."))
        return Loaded(method, _part(tensors, "head.")), int(kind.grows * _bytes(tensors))

    def _widened(self, name: str, tensor: torch.Tensor, task: RegisteredTask) -> torch.Tensor:
        """Return a tensor of a head that has fewer outputs than the widest with rows of 0 for those it has not."""
        widest = self.backbone.head.get(name.removeprefix("head."))
        if widest is None or widest.shape[1:] != tensor.shape[1:] or tensor.shape[:1] != (task.outputs,):
            return tensor
        return torch.cat([tensor, tensor.new_zeros(len(widest) - task.outputs, *tensor.shape[1:])])


def read_recorded(task: RegisteredTask) -> dict[str, torch.Tensor]:
    """Read a task's tensors from its record; UserError where they are damaged."""
    task.record.check([task.record.adapter_dir.name])
    return read_tensors(task.record.adapter_dir)


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

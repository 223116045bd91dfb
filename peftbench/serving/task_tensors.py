"""The tensors of registered tasks: read when they are asked for, kept as long as there is room, stacked for a pass."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from peftbench.backbones.heads import HeadedBackbone
from peftbench.config.task import fill_text_task
from peftbench.errors import UserError
from peftbench.methods import Method, method_class
from peftbench.methods.stacking import stacked, with_tensors
from peftbench.runs.adapter import build_described, check_shapes, read_tensors
from peftbench.runs.record import Record
from peftbench.serving.batch_mode import BatchMode, probe_batch_mode, shares_layers
from peftbench.serving.byte_limited_lru import ByteLimitedLRU
from peftbench.serving.load import describe_run
from peftbench.serving.mixing import Mixer, Tensors
from peftbench.tasks.text.read import blank_task


class RegisteredTask:
    """A task of `MultiTask`, and what its record says of it; its tensors are read later, by `TaskTensors`.

    Attributes:
        columns: names of its text columns, one or two.
        outputs: width of its head: its number of classes, 1 for a regression.
        method_key: its method's name and settings as JSON; tasks with the same key differ in their tensors alone.
        model: the name of its backbone, for messages. backbone: digest of the backbone's weights, or for a record
            without one the model's settings as JSON; the same for tasks that can share one.
        precision: that it was trained and scored in, fp32 or bf16.
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
        self.method_key = json.dumps(self.description.method, sort_keys=True)
        self.precision = record.trainer().precision
        self.model = self.description.model.get("name")
        origin = record.read().origin
        settings = {key: value for key, value in self.description.model.items() if key != "dropout"}
        self.backbone = (origin and origin.weights) or json.dumps(settings, sort_keys=True)


class MethodPrototype(NamedTuple):
    """What tasks of one method and settings have in common.

    Attributes:
        method: on torch's meta device, so without values.
        shapes: of its tensors, by `method.NAME`. size: of all, in bytes.
        first_layer: the lowest layer of the backbone that it changes.
        mode, memory_factor: see `BatchSupport`.
    """

    method: Method
    shapes: dict[str, torch.Size]
    size: int
    first_layer: int
    mode: BatchMode
    memory_factor: float


class Loaded(NamedTuple):
    """A task's method and head with their tensors."""

    method: Method
    head: Tensors


class TaskTensors:
    """Methods and heads for the passes of one mixer, their tensors read when they are needed and kept as long as fits.

    At most `memory` bytes are kept. A pass of tasks that together are within `pass_limit` needs no more either.
    """

    def __init__(self, mixer: Mixer, memory: int, read: Callable[[RegisteredTask], Tensors]) -> None:
        """Begin with no tensors; `read` returns those of a task by `method.NAME` and `head.NAME`."""
        self.mixer, self._read = mixer, read
        self._prototypes: dict[str, MethodPrototype] = {}
        self.pass_limit = memory // 2  # for the tasks by themselves, and as much for them stacked
        self._kept: ByteLimitedLRU[Any] = ByteLimitedLRU(memory)

    @property
    def backbone(self) -> HeadedBackbone:
        """The backbone under a head as wide as the widest of all tasks."""
        return self.mixer.backbone

    @property
    def outputs(self) -> int:
        """How wide that head is."""
        config: Any = self.backbone.model.config
        return int(config.num_labels)

    @torch.inference_mode(False)  # what is kept is for every later call, in whatever mode it comes
    def prototype(self, task: RegisteredTask) -> MethodPrototype:
        """Return what a task's method has in common with others of the same settings; tried out at the first call."""
        if task.method_key not in self._prototypes:
            sites = self.backbone.sites
            with torch.random.fork_rng(devices=[]):
                method = build_described(task.description, sites)
            method.to(sites.device).requires_grad_(False)
            support = probe_batch_mode(method, self.mixer)
            shapes = {f"method.{name}": tensor.shape for name, tensor in method.state_dict().items()}
            size, first_layer = _bytes(method.state_dict()), method.first_layer(sites)
            self._prototypes[task.method_key] = MethodPrototype(method.to("meta"), shapes, size, first_layer, *support)
        return self._prototypes[task.method_key]

    @cached_property
    def shares_layers(self) -> bool:
        """Whether repeated rows may pass the layers below all methods once; see `batch_mode.shares_layers`."""
        return shares_layers(self.mixer)

    def shares(self, task: RegisteredTask, length: int) -> bool:
        """Tell whether a task's rows can share a pass of `length` tokens with others."""
        return self.prototype(task).mode != BatchMode.ALONE and self.fits(task, length)

    def fits(self, task: RegisteredTask, length: int) -> bool:
        """Tell whether the model takes `length` tokens and those that a task's method inserts."""
        return length + self.prototype(task).method.inserted_tokens <= self.backbone.sites.positions

    def size_of(self, task: RegisteredTask) -> int:
        """Return the bytes that a task's method and head hold, with what they make of their tensors."""
        prototype = self.prototype(task)
        return int(prototype.memory_factor * (prototype.size + _bytes(self.backbone.head)))

    @torch.inference_mode(False)
    def load(self, task: RegisteredTask) -> Loaded:
        """Return a task's method and head; UserError where they are damaged."""
        found: Loaded = self._kept.get(("loaded", task.name), lambda: (self._fitted(task), self.size_of(task)))
        return found

    @torch.inference_mode(False)
    def method(self, tasks: Sequence[RegisteredTask], loaded: Mapping[str, Loaded]) -> Method:
        """Return the method of tasks with one `method_key`, with their tensors, stacked where there are several."""
        methods = [loaded[task.name].method for task in tasks]
        if len(methods) == 1:
            return methods[0]

        def make() -> tuple[Method, int]:
            prototype = self.prototype(tasks[0])
            made = stacked(prototype.method, [method.state_dict() for method in methods])
            return made, int(prototype.memory_factor * _bytes(made.state_dict()))

        found: Method = self._kept.get(("method", *(task.name for task in tasks)), make)
        return found

    @torch.inference_mode(False)
    def head(self, tasks: Sequence[RegisteredTask], loaded: Mapping[str, Loaded]) -> Tensors:
        """Return the heads' tensors of some tasks, stacked where there are several."""
        heads = [loaded[task.name].head for task in tasks]
        if len(heads) == 1:
            return heads[0]

        def make() -> tuple[Tensors, int]:
            made = {name: torch.stack([head[name] for head in heads]) for name in heads[0]}
            return made, _bytes(made)

        found: Tensors = self._kept.get(("head", *(task.name for task in tasks)), make)
        return found

    def _fitted(self, task: RegisteredTask) -> Loaded:
        prototype = self.prototype(task)
        tensors = {name: self._widened(name, tensor, task) for name, tensor in self._read(task).items()}
        shapes = {f"head.{name}": parameter.shape for name, parameter in self.backbone.head.items()}
        check_shapes(task.record.adapter_dir, tensors, prototype.shapes | shapes)
        device = self.backbone.sites.device
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        method = with_tensors(prototype.method, _part(tensors, "method."))
        return Loaded(method, _part(tensors, "head."))

    def _widened(self, name: str, tensor: torch.Tensor, task: RegisteredTask) -> torch.Tensor:
        """Return a tensor of a narrower head filled up with zeros to the widest head's outputs; others as they are."""
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

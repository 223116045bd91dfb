"""From a config to all that a run trains with; nothing is written, and the user's mistakes show here."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from peftbench.assets.fetch import fetch
from peftbench.assets.weights import weights_digest
from peftbench.backbones.economy.first_token import head_reads_first_token
from peftbench.backbones.economy.lower_layers import check_lower_layers
from peftbench.backbones.heads import HeadedBackbone, start_at
from peftbench.backbones.load import AnswersThrough, Backbone, load_backbone
from peftbench.backbones.sites import Sites
from peftbench.config.schema import RunConfig
from peftbench.config.task import TaskConfig
from peftbench.errors import UserError
from peftbench.interruption import check_interrupted
from peftbench.measuring.parameters import count_parameters
from peftbench.methods import Method, build, method_class
from peftbench.methods.guard import check_method
from peftbench.runs.heads import put_head
from peftbench.runs.origin import code_digest
from peftbench.runs.parts import LoadedPart, load_parts
from peftbench.runs.pinned_config import check_layer_count
from peftbench.runs.result import Origin, SourceRun
from peftbench.tasks.base import Examples, Task
from peftbench.tasks.kinds import load_task, reader_of
from peftbench.tasks.regression import Regression
from peftbench.training.devices import use_device, use_threads
from peftbench.training.torchrun import launched_workers


@dataclass(frozen=True)
class Prepared:
    """What a run needs before it can train: all the user's mistakes show while this is made."""

    device: torch.device
    task: Task
    backbone: HeadedBackbone
    method: Method
    reads_first_token_only: bool
    splits: dict[str, Examples]
    warnings: list[str]  # of the data
    remarks: list[str]  # of the method on this model
    parameters: dict[str, Any]
    origin: Origin

    def redraw(self, random: np.random.Generator | None) -> None:
        """Let the method draw what differs from batch to batch."""
        self.method.redraw(random, self.backbone.sites)

    @property
    def statistics(self) -> dict[str, torch.Tensor]:
        """What training changes besides: the running means of batch norms, the method's and the head's, by name."""
        method = {f"method.{name}": buffer for name, buffer in self.method.named_buffers()}
        return method | {f"head.{name}": buffer for name, buffer in self.backbone.statistics.items()}

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, the method's and the head's, by name."""
        method = {f"method.{name}": parameter for name, parameter in self.method.named_parameters()}
        return method | {f"head.{name}": parameter for name, parameter in self.backbone.head.items()}


def prepare(config: RunConfig, reuse: bool = False, with_parts: bool = True) -> Prepared:
    """Read the task, load the backbone, build the method; nothing is written yet.

    With `reuse` the backbone and the tokenized data of the last such call are used again where they are the
    same, made as new: what that call prepared is spent. The runs of a sweep so load them once in a process.
    Without `with_parts` the runs that the method is made of are not read, for it is loaded from its own adapter.
    """
    if not reuse:
        _kept.clear()
    use_threads(config.threads)
    device = use_device(config.device)
    check_interrupted()
    task = load_task(config.task)
    for name in ("train", "validation"):
        if task.splits[name].labels is None:
            raise UserError(f"task {task.name}: the labels of its {name} split ({task.source}) are all hidden (-1)")
    check_interrupted()
    folder = fetch(config.model)
    weights = weights_digest(folder, config.model.source)
    torch.manual_seed(config.seed_for("init"))
    method_cls = method_class(config.method_name)
    loaded = _backbone(folder, weights, config.model.dropout, method_cls.answers_through)
    task.check_model(loaded.sites, config.model.name)
    backbone = put_head(method_cls, config.method, loaded, task.labels, config.task)
    check_layer_count(config, len(backbone.sites.layers))
    parts = load_parts(config, weights) if with_parts else {}
    method = build(config.method, backbone.sites, {name: part.tensors for name, part in parts.items()} or None)
    check_length(config, backbone.sites.positions, method.extra_positions)
    concerns = check_method(method, backbone, config.task.longest)
    _check_trainer(config, backbone.sites, method)
    _check_divisible(backbone.sites, method)
    splits, warnings = _encoded(task, backbone, weights, config.task)
    if config.trainer.cache_frozen and splits["train"].augmented(0, 0) is not splits["train"]:
        raise UserError(
            "trainer.cache_frozen=true keeps what the frozen layers give, and task.augment changes the images in every"
            " epoch: leave one of them out, such as with task.augment=[]"
        )
    if isinstance(task.objective, Regression):
        start_at(backbone, float(np.mean(task.splits["train"].labels)))
    if config.seed_of.given:  # whatever has been drawn so far
        torch.manual_seed(config.seed_for("dropout"))
    return Prepared(
        device=device,
        task=task,
        backbone=backbone,
        method=method,
        reads_first_token_only=head_reads_first_token(backbone.sites),
        splits=splits,
        warnings=warnings,
        remarks=[*concerns, *method.remarks(backbone.sites)],
        parameters=count_parameters(method, backbone),
        origin=origin_of(task, config.task.kind, backbone, method, weights, parts),
    )


def _check_trainer(config: RunConfig, sites: Sites, method: Method) -> None:
    """Raise UserError for ways to spare computing that do not fit the method or the model."""
    trainer = config.trainer
    if trainer.compile and method.varies:
        raise UserError(
            "trainer.compile=true: what is compiled cannot act otherwise from batch to batch, as method.drop makes it:"
            " leave one of them out"
        )
    if trainer.compile and trainer.checkpointing:
        raise UserError("trainer.compile=true and trainer.checkpointing=true do not go together: leave one of them out")
    if not trainer.cache_frozen:
        return
    if trainer.compile:
        raise UserError("trainer.cache_frozen=true and trainer.compile=true do not go together: leave one of them out")
    first = method.first_layer(sites)
    if not first:
        raise UserError(
            f"trainer.cache_frozen=true: method={config.method_name} changes the model from the first layer on, so that"
            " nothing stays the same: where it has method.layers, set them to the upper ones, such as 3-"
        )
    check_lower_layers(sites, first)


def _check_divisible(sites: Sites, method: Method) -> None:
    """Raise UserError under torchrun for what would not train as in one process."""
    modules = [module for part in (method, *sites.head_modules) for module in part.modules()]
    if launched_workers() > 1 and any(isinstance(module, _BATCH_NORMS) for module in modules):
        raise UserError(
            "under torchrun each process has a part of every batch, and the method or the head has batch norms, which"
            " take the means of a whole one: train this run in one process"
        )


def origin_of(
    task: Task,
    kind: str,
    backbone: HeadedBackbone,
    method: Method,
    weights: str,
    parts: Mapping[str, LoadedPart] = MappingProxyType({}),
) -> Origin:
    """Return what a run is made from besides its config.

    Args:
        kind: of the task. weights: digest of the backbone's files. parts: the runs that its method is made of.
    """
    # what a run computes with, whichever method, task and layout it has
    shared = ("backbones.heads", "backbones.load", "backbones.economy.attach", "training.inference", "training.loop")
    modules = [f"peftbench.{name}" for name in (*shared, f"backbones.layouts.{backbone.sites.layout.name}")]
    reader = reader_of(kind).__name__
    modules += [type(method).__module__, type(task).__module__, type(task.objective).__module__, reader]
    modules = sorted({*modules, __name__})
    made_of = {name: SourceRun(part.run, part.digest) for name, part in parts.items()}
    return Origin(task.checksum, code_digest(modules), modules, weights, task.checksums, made_of)


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_kept: dict[str, tuple[object, Any]] = {}


def _keep(name: str, key: object, make: Callable[[], Any]) -> Any:
    """Return what `make` gave for this key, now or before; another key drops the old value."""
    if name not in _kept or _kept[name][0] != key:
        _kept.pop(name, None)  # first: two backbones may not fit
        _kept[name] = key, make()
    return _kept[name][1]


def _backbone(folder: Path, weights: str, dropout: float | None, answers_through: AnswersThrough) -> Backbone:
    # by the files' digest too: a folder may hold another model than when it was read
    key = (folder, weights, dropout, answers_through)
    backbone: Backbone = _keep("backbone", key, lambda: load_backbone(folder, dropout, answers_through))
    # where the last run may have left it: a method's start is computed there
    (backbone.language_model or backbone.towers or backbone.encoder).cpu()
    return backbone


def _encoded(
    task: Task, backbone: HeadedBackbone, weights: str, config: TaskConfig
) -> tuple[dict[str, Examples], list[str]]:
    """Return the splits as the model reads them, and what the user should know of them."""

    def encode() -> tuple[dict[str, Examples], list[str]]:
        encoded = {name: task.encode_split(name, backbone.sites) for name in task.splits}
        return encoded, task.warnings(encoded)

    template = str(getattr(backbone.sites.processor, "pieces", ""))
    key = (json.dumps(asdict(config), sort_keys=True), task.checksum, weights, template)
    kept: tuple[dict[str, Examples], list[str]] = _keep("splits", key, encode)
    return kept


def check_length(config: RunConfig, positions: int, extra: int) -> None:
    """Raise UserError where the task's longest row and what the method adds exceed the model's positions."""
    if config.task.longest is not None and config.task.longest + extra > positions:
        added = f" plus the method's {extra}" if extra else ""
        raise UserError(
            f"task.max_length={config.task.longest}{added} tokens do not fit {config.model.name}, which takes"
            f" {positions}: lower {'method.length or ' if extra else ''}task.max_length"
        )

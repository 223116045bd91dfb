"""From a config to all that a run trains with; nothing is written, and the user's mistakes show here."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftbench.assets import fetch
from peftbench.backbones.first_row import reads_first_row
from peftbench.backbones.load import Backbone, load_backbone
from peftbench.config import RunConfig
from peftbench.errors import UserError
from peftbench.measuring.parameters import count_parameters
from peftbench.methods import Method, build
from peftbench.tasks import Task, load_task
from peftbench.tasks.batching import Encoded, encode
from peftbench.training.devices import choose_device


@dataclass(frozen=True)
class Prepared:
    """What a run needs before it can train: all the user's mistakes show while this is made."""

    device: torch.device
    task: Task
    backbone: Backbone
    method: Method
    first_row: bool
    splits: dict[str, Encoded]
    parameters: dict[str, Any]

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that trains, the method's and the head's, by name."""
        method = {f"method.{name}": parameter for name, parameter in self.method.named_parameters()}
        return method | {f"head.{name}": parameter for name, parameter in self.backbone.head.items()}


def prepare(config: RunConfig) -> Prepared:
    """Read the task, load the backbone, build the method; nothing is written yet."""
    device = choose_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    task = load_task(config.task)
    for name in ("train", "validation"):
        if task.splits[name].labels is None:
            raise UserError(f"task {task.name}: the labels of its {name} split ({task.source}) are all hidden (-1)")
    folder = fetch(config.model)
    torch.manual_seed(config.seed)
    backbone = load_backbone(folder, task.num_outputs, config.model.dropout)
    method = build(config.method, backbone.sites)
    check_length(config, backbone.sites.positions, method.extra_tokens)
    return Prepared(
        device=device,
        task=task,
        backbone=backbone,
        method=method,
        first_row=reads_first_row(backbone.sites),
        splits={
            name: encode(split.texts, split.labels, backbone.sites.tokenizer, config.task.max_length)
            for name, split in task.splits.items()
        },
        parameters=count_parameters(method, backbone),
    )


def check_length(config: RunConfig, positions: int, extra: int) -> None:
    """Raise UserError where the task's longest row and what the method adds exceed the model's positions."""
    if config.task.max_length + extra > positions:
        added = f" plus the method's {extra}" if extra else ""
        raise UserError(
            f"task.max_length={config.task.max_length}{added} tokens do not fit {config.model.name}, which takes"
            f" {positions}: lower {'method.length or ' if extra else ''}task.max_length"
        )

"""From a finished run's record to its model, ready to be scored, asked or timed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from peftbench.assets.fetch import fetch
from peftbench.assets.weights import weights_digest
from peftbench.backbones.economy.attach import economical
from peftbench.backbones.economy.first_token import head_reads_first_token
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone, load_backbone
from peftbench.config.asset import ModelConfig
from peftbench.config.fill import fill
from peftbench.config.task import fill_task
from peftbench.errors import UserError
from peftbench.files import expanded, is_there
from peftbench.methods import METHODS, Method, method_class
from peftbench.runs.adapter import Description, load_adapter, read_description
from peftbench.runs.find import inspect_run
from peftbench.runs.heads import put_head
from peftbench.runs.record import Record
from peftbench.runs.result import Status


class RunModel(NamedTuple):
    """A run's model.

    Attributes:
        backbone: with its head. method: the trained one, attached to the backbone.
        description: what adapter.json says of both.
        base: the folder that the backbone was loaded from. weights: its digest, see `assets.weights.weights_digest`.
    """

    backbone: HeadedBackbone
    method: Method
    description: Description
    base: Path
    weights: str


def describe_run(record: Record) -> Description:
    """Return what a run's adapter.json says; UserError where the run has not finished or its adapter is damaged."""
    if not record.adapter_dir.exists():
        status = inspect_run(record).status
        remedy = "wait for it" if status == Status.RUNNING else "the same `peftbench train` command trains it"
        raise UserError(f"run {record.folder.name} has no trained adapter, its status is {status}: {remedy}")
    record.check([record.adapter_dir.name])
    return read_description(record.adapter_dir)


@torch.inference_mode(False)  # what is loaded is for every later call, in whatever mode it comes
def load_run_model(record: Record, device: torch.device) -> RunModel:
    """Fetch a run's backbone, fill in what the run trained and attach it, on `device` and in evaluation mode.

    Raises UserError where the run has not finished, where its model is gone, or where the adapter's file is
    damaged or does not fit the model.
    """
    description = describe_run(record)
    settings = dict(description.method)
    method_cls = method_class(settings.pop("name"))
    method_config = fill(method_cls.config_class, settings, "method")
    loaded, base, weights = load_run_backbone(record, description)
    backbone = put_head(method_cls, method_config, loaded, description.labels, fill_task(description.task))
    backbone.model.to(device)
    method = load_adapter(record.adapter_dir, backbone)
    return RunModel(backbone, method, description, base, weights)


@torch.inference_mode(False)
def load_run_backbone(record: Record, description: Description) -> tuple[Backbone, Path, str]:
    """Fetch and load a run's backbone; return it, its folder and the digest of its weights.

    Raises UserError where it is gone or another lies in its place.
    """
    config = fill(ModelConfig, description.model, "model")
    if config.source == "local" and not is_there(expanded(config.path or ""), Path.is_dir):
        raise UserError(
            f"the model of run {record.folder.name} is gone: there is no folder {config.path}; put it back,"
            " or train again on another model"
        )
    answers_through = method_class(description.method["name"]).answers_through
    base, weights = _fetch_same(config, record)
    return load_backbone(base, config.dropout, answers_through), base, weights


def _fetch_same(config: ModelConfig, record: Record) -> tuple[Path, str]:
    """Return folder and digest of the model that the run was trained on; UserError where another lies in its place."""
    origin = record.read().origin
    weights = origin.weights if origin else None
    if weights and weights.startswith("commit:"):
        config = replace(config, revision=weights.removeprefix("commit:"))
    folder = fetch(config)
    found = weights_digest(folder, config.source)
    if weights and found != weights:
        raise UserError(
            f"{folder} holds another model than run {record.folder.name} was trained on: put the old one back, or"
            " train again on the new one"
        )
    return folder, found


@contextmanager
def inference(model: RunModel, precision: str, merged: bool = False) -> Iterator[None]:
    """Within the block the model computes as it did in training, so that it gives the figures of the record.

    Args:
        model: is left with its method attached, unmerged.
        precision: that the run was scored in, fp32 or bf16.
        merged: fold the method into the backbone's weights.

    Raises UserError where `merged` is asked of a method that cannot be merged.
    """
    backbone, method = model.backbone, model.method
    if merged:
        check_mergeable(method.name)
    method.detach()
    try:
        with economical(backbone.sites, method, head_reads_first_token(backbone.sites), precision, merged=merged):
            yield
    finally:
        method.attach(backbone.sites)


def check_mergeable(method: str) -> None:
    """Raise UserError, naming those that can, where a method cannot be merged into the backbone's weights."""
    if not method_class(method).mergeable:
        others = ", ".join(sorted(name for name, cls in METHODS.items() if cls.mergeable))
        raise UserError(f"--merged: {method} cannot be merged into the backbone's weights, only {others}")

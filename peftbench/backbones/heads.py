"""Heads on a backbone: the classifier that transformers itself would put there, around the shared encoder.

The encoder stands once in memory, however many heads it carries. What its checkpoint did not carry (a fresh
pooler) belongs to each head: the head's tensors take its place in the encoder whenever that head computes.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from peftbench.backbones.dropout import set_dropout
from peftbench.backbones.load import Backbone, encoder_name, quiet
from peftbench.backbones.sites import Sites


@dataclass(frozen=True)
class HeadedBackbone:
    """A backbone under one head: what trains and answers.

    Attributes:
        backbone: the encoder, shared by all its heads.
        model: called with a batch's columns, returns an object with `.logits`, (batch, outputs).
        sites: the backbone's, and with the head the site `final`.
        head: the head's parameters by their names in `model`; they train, the others are frozen.
    """

    backbone: Backbone
    model: nn.Module
    sites: Sites
    head: dict[str, nn.Parameter]

    @property
    def size(self) -> int:
        """Number of the backbone's parameters, the head left out."""
        return self.backbone.size

    @property
    def statistics(self) -> dict[str, torch.Tensor]:
        """What the head gathers while it trains, by name in `model`: the running means of its batch norms.

        Asked for anew each time: a module that moves to another device puts new tensors in their place.
        """
        gathered = {id(buffer) for module in self.sites.head_modules for buffer in module.buffers()}
        return {name: buffer for name, buffer in self.model.named_buffers() if id(buffer) in gathered}


def add_head(backbone: Backbone, num_outputs: int) -> HeadedBackbone:
    """Put a new head on a backbone, on the device the backbone is on.

    Args:
        backbone: keeps the heads it has; each computes with its own tensors.
        num_outputs: number of classes; 1 for regression. Saved tensors of fitting shape are where training
            starts; the others are drawn from torch's generator as transformers draws them.
    """
    encoder: Any = backbone.encoder
    device, layout = backbone.sites.device, backbone.sites.layout
    config = copy.deepcopy(backbone.config or encoder.config)
    config.num_labels = num_outputs
    with torch.device("meta"), quiet():
        model: Any = backbone.classifier_class(config)
    inside = encoder_name(model)
    setattr(model, inside, encoder)
    for child in model.children():
        if child is not encoder and device.type != "meta":
            child.to_empty(device="cpu")  # a GPU's generator draws other numbers
    fresh = {f"{inside}.{name}": _renew_parameter(encoder, name) for name in filter(layout.reads, backbone.sites.fresh)}
    head = {name: p for name, p in model.named_parameters() if name in fresh or not name.startswith(inside + ".")}
    if device.type != "meta":
        _fill(model, head, backbone.saved_head)
        model.to(device)
    for parameter in head.values():
        parameter.requires_grad_(True)
    if backbone.dropout is not None:
        set_dropout(model, backbone.dropout)
    model.eval()
    if fresh:
        model.register_forward_pre_hook(lambda module, args: _put_in_place(module, fresh))
    modules = tuple(c for c in model.children() if c is not encoder and next(c.parameters(), None) is not None)
    return HeadedBackbone(backbone, model, replace(backbone.sites, model=model, head_modules=modules), head)


@torch.no_grad()
def start_at(backbone: HeadedBackbone, answer: float) -> None:
    """Let a head of one output begin with an answer: its last bias, unless the checkpoint carried it, becomes that.

    AdamW moves a bias by the learning rate a step: from 0 it would not come to scores of 0 to 5 in an epoch, and the
    features would have to carry their mean instead.
    """
    modules = (module for part in backbone.sites.head_modules for module in part.modules())
    linear = [module for module in modules if isinstance(module, nn.Linear)]
    saved = backbone.backbone.saved_head
    for name, parameter in backbone.head.items():
        if parameter is linear[-1].bias and not (name in saved and saved[name].shape == parameter.shape):
            parameter.fill_(answer)


@torch.no_grad()
def _fill(model: Any, head: dict[str, nn.Parameter], saved: dict[str, torch.Tensor]) -> None:
    """Copy saved tensors into the head where their shape fits; let transformers draw the others."""
    kept = {name for name, p in head.items() if name in saved and saved[name].shape == p.shape}
    for name in kept:
        head[name].copy_(saved[name])
    drawn = {id(parameter) for name, parameter in head.items() if name not in kept}
    for parameter in model.parameters():
        # the mark by which transformers leaves alone what a checkpoint carried
        parameter._is_hf_initialized = id(parameter) not in drawn
    for module in model.modules():  # a module may draw what its parts hold (ModernBERT's classifier)
        module._is_hf_initialized = all(parameter._is_hf_initialized for parameter in module.parameters())
    model.initialize_weights()


def _renew_parameter(encoder: nn.Module, name: str) -> nn.Parameter:
    """Put a new, empty parameter in the place `name` and return it."""
    parameter = nn.Parameter(torch.empty_like(encoder.get_parameter(name), device="cpu"))
    _put_in_place(encoder, {name: parameter})
    return parameter


def _put_in_place(module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        path, _, leaf = name.rpartition(".")
        module.get_submodule(path)._parameters[leaf] = parameter

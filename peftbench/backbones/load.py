"""Load a pretrained encoder with a fresh head for a task, or build it without weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from peftbench.backbones.sites import Sites, find_sites
from peftbench.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A classifier on a pretrained encoder.

    Attributes:
        model: transformers' `AutoModelForSequenceClassification`; all of it frozen but the head.
        sites: where methods attach; holds the tokenizer.
        head: the head's parameters by name: the classifier, and what the checkpoint did not carry.
        saved_head: values of those head parameters that the checkpoint did carry; the others start at random.
    """

    model: nn.Module
    sites: Sites
    head: dict[str, nn.Parameter]
    saved_head: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of the backbone's parameters, the head left out."""
        return sum(p.numel() for _, p in self.sites.backbone_parameters())

    @torch.no_grad()
    def renew(self) -> None:
        """Bring a used backbone, with nothing attached, back to what loading it now would give.

        The head's random start is drawn from torch's generator exactly as `load_backbone` draws it.
        """
        model: Any = self.model
        model.cpu().eval()  # a GPU's generator draws other numbers
        for name, parameter in self.head.items():
            if name in self.saved_head:
                parameter.copy_(self.saved_head[name])
        drawn = [parameter for name, parameter in self.head.items() if name not in self.saved_head]
        for parameter in model.parameters():
            # the mark by which transformers leaves alone what a checkpoint carried
            parameter._is_hf_initialized = not any(parameter is other for other in drawn)
        for module in model.modules():
            own = module.parameters(recurse=False)
            module._is_hf_initialized = all(parameter._is_hf_initialized for parameter in own)
        model.initialize_weights()
        for parameter in self.head.values():
            parameter.grad = None


def load_backbone(folder: Path, num_outputs: int, dropout: float | None = None) -> Backbone:
    """Load weights and tokenizer from a folder in transformers' format.

    Args:
        folder: holds config.json, weights and the tokenizer's files.
        num_outputs: number of classes; 1 for regression. A saved head of that size is where training starts.
        dropout: rate for all dropout layers; None keeps the model's own.

    Raises UserError where the folder holds no such model, its weights are cut short, or nothing fits the
    architecture.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    with _quiet():
        try:
            config = AutoConfig.from_pretrained(folder, num_labels=num_outputs)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a saved head of another task
            )
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # transformers and safetensors raise many kinds for a broken folder
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"cannot load a model from {folder}: {reason}") from error
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    return _backbone(model, missing, dropout, tokenizer)


def blank_backbone(architecture: dict[str, Any], num_outputs: int) -> Backbone:
    """Build the model that `architecture` (`model_type` and its numbers) describes on the meta device.

    It has shapes and no weights: nothing is downloaded and nothing but counting is possible.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    if "model_type" not in architecture:
        raise UserError("this model's config names no architecture: add architecture.model_type and its numbers")
    try:
        config = AutoConfig.for_model(**architecture, num_labels=num_outputs)
        with torch.device("meta"), _quiet():
            model = AutoModelForSequenceClassification.from_config(config)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.architecture does not describe a model: {str(error).splitlines()[0]}") from error
    return _backbone(model, set(), None, None)


def _backbone(model: Any, missing: set[str], dropout: float | None, tokenizer: Any) -> Backbone:
    inside = model.base_model_prefix + "."
    fresh = {name.removeprefix(inside) for name in missing if name.startswith(inside)}
    sites = find_sites(model, tokenizer, fresh)
    if lacking := [name for name in fresh if name.startswith(sites.layout.layers)]:
        raise UserError(
            f"the checkpoint lacks {len(lacking)} weights of the encoder's layers ({lacking[0]}, …):"
            " it is of another architecture"
        )
    backbone = {id(p) for _, p in sites.backbone_parameters()}
    head = {name: p for name, p in model.named_parameters() if id(p) not in backbone}
    model.requires_grad_(False)
    for parameter in head.values():
        parameter.requires_grad_(True)
    if dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
    model.eval()
    saved = {name: p.detach().clone() for name, p in head.items() if name not in missing}
    return Backbone(model, sites, head, saved)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own progress bars and load reports off the terminal."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

"""Load a pretrained encoder without a head, or build it without weights."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from peftbench.backbones.dropout import set_config_dropout, set_dropout
from peftbench.backbones.image_tokens import INTERPOLATE, interpolates_when_asked
from peftbench.backbones.inputs import PIXELS
from peftbench.backbones.processors import load_image_processor, load_processor, load_tokenizer
from peftbench.backbones.sites import Sites, find_sites
from peftbench.errors import UserError, first_line
from peftbench.out_of_memory import is_out_of_memory

# a new classifier, or what the encoder was pretrained under: a masked-language-model head, or beside a tower of texts
AnswersThrough = Literal["classifier", "masked_lm", "class_texts"]

# what a checkpoint need not hold of an encoder: pretraining may not have had the one, training never reads the other
_MAY_BE_FRESH = ("pooler", "mask_token")
_NEVER_RUN = "which is never run, for it could do anything; choose a model that transformers itself knows"


@dataclass(frozen=True)
class Backbone:
    """A pretrained encoder without a head; `peftbench.backbones.heads` puts one on it, or several.

    Attributes:
        encoder: transformers' base model, frozen and in evaluation mode.
        classifier_class: the transformers class that puts a classifier on this encoder.
        sites: where methods attach; holds the tokenizer, or the image processor.
        saved_head: what the checkpoint holds of a classifier's tensors, by their names in `classifier_class`.
        dropout: rate that replaced the model's own; None where those stay.
        language_model: the encoder under its masked-language-model head, all frozen, where that was asked for.
        towers: CLIP's encoder beside its tower of texts, all frozen, where that was asked for; tokenizer: of the texts.
        config: what `classifier_class` is built from; None: the encoder's own.
    """

    encoder: nn.Module
    classifier_class: type[nn.Module]
    sites: Sites
    saved_head: dict[str, torch.Tensor] = field(default_factory=dict)
    dropout: float | None = None
    language_model: nn.Module | None = None
    towers: nn.Module | None = None
    tokenizer: Any = None
    config: Any = None

    @property
    def size(self) -> int:
        """Number of the encoder's parameters, those that no checkpoint filled (a fresh pooler) left out.

        Where both towers answer it is theirs.
        """
        if self.towers is not None:
            return sum(p.numel() for p in self.towers.parameters())
        return sum(p.numel() for _, p in self.sites.backbone_parameters())


def load_backbone(
    folder: Path, dropout: float | None = None, answers_through: AnswersThrough = "classifier"
) -> Backbone:
    """Load weights and tokenizer, or image processor, from a folder in transformers' format.

    torch's random state stays as it is.

    Args:
        folder: holds config.json, weights and the files of the tokenizer or image processor.
        dropout: rate for all dropout layers; None keeps the model's own.
        answers_through: with what else of its pretraining.

    Raises UserError where the folder holds no such model, its weights are cut short, nothing fits the architecture,
    or it has no such head. Code that a folder brings along is never run.
    """
    from transformers import AutoConfig

    with quiet(), torch.random.fork_rng(devices=[]):  # a head's random start is drawn when it is built
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if dropout is not None:
                set_config_dropout(config, dropout)
            _check_attention(config)
            model, info = _auto_class(config, answers_through).from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                weights_only=True,  # of pickled weights: tensors alone
            )
            _copy_weights(model)
            if answers_through == "class_texts":
                processor, tokenizer = load_image_processor(folder), load_tokenizer(folder)
            else:
                processor, tokenizer = load_processor(folder, model), None
        except UserError as error:
            raise UserError(f"{error}; the model was read from {folder}") from error
        except Exception as error:  # transformers and safetensors raise many kinds for a broken folder
            if is_out_of_memory(error):
                raise
            raise UserError(f"cannot load a model from {folder}: {_reason(error)}") from error
    missing = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    if answers_through == "masked_lm":
        _check_language_model(folder, model, missing)
    if answers_through == "class_texts" and missing:
        raise UserError(
            f"the weights in {folder} lack {len(missing)} tensors of CLIP's two towers ({min(missing)}, …): take one as"
            " it was pretrained, such as model=clip_vit_b16"
        )
    return _backbone(model, missing, dropout, processor, answers_through, tokenizer)


def _copy_weights(model: nn.Module) -> None:
    """Copy the weights out of the file that transformers maps: what is written over it would change the model."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _auto_class(config: Any, answers_through: AnswersThrough) -> Any:
    """Return the class that puts a head on such a model: transformers' own classifier where it has one."""
    from transformers import (
        AutoModel,
        AutoModelForImageClassification,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForZeroShotImageClassification,
        CLIPModel,
    )

    if answers_through == "class_texts":
        if config.model_type != CLIPModel.config_class.model_type:
            raise UserError(
                f"a model of type {config.model_type} has no tower of texts as CLIP has it, which the method answers"
                " through: take model=clip_vit_b16, or another method"
            )
        return AutoModelForZeroShotImageClassification
    if answers_through == "masked_lm":
        if type(config) not in AutoModelForMaskedLM._model_mapping:
            raise UserError(
                f"a model of type {config.model_type} has no masked-language-model head, which the method answers"
                " through: take a model of texts, such as model=bert_base, or another method"
            )
        return AutoModelForMaskedLM
    for auto in (AutoModelForSequenceClassification, AutoModelForImageClassification):
        if type(config) in auto._model_mapping:
            classes = auto._model_mapping[type(config)]
            if isinstance(classes, tuple):  # the first reads as others do; DeiT's second also from its teacher's token
                config.architectures = [classes[0].__name__]
            return auto
    if type(config) in AutoModel._model_mapping and AutoModel._model_mapping[type(config)].main_input_name == PIXELS:
        from peftbench.backbones.image_classifier import ImageClassifier

        return ImageClassifier
    return AutoModelForSequenceClassification  # which says what it knows


def _check_language_model(folder: Path, model: Any, missing: set[str]) -> None:
    """Refuse a checkpoint without the head of its pretraining, in whose place a random one would stand."""
    lacking = sorted(name for name in missing if not name.startswith(f"{model.base_model_prefix}."))
    if lacking:
        raise UserError(
            f"the model in {folder} has no masked-language-model head (its weights lack {lacking[0]}): take one as it"
            " was pretrained, such as model=bert_base or model=roberta_base"
        )


def _check_attention(config: Any) -> None:
    """Refuse a config that asks for attention from the hub: compiled code, which transformers would fetch and run."""
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise ValueError(f"its config.json asks for code from the hub ({config._attn_implementation}), {_NEVER_RUN}")


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return f"it needs Python code of its own (auto_map), {_NEVER_RUN}"
    if isinstance(error, pickle.UnpicklingError):  # torch's own line advises to run what is in the file
        return "its pickled weights are damaged or hold more than tensors, which is never run; save them as safetensors"
    return first_line(error)


def blank_backbone(architecture: dict[str, Any], answers_through: AnswersThrough = "classifier") -> Backbone:
    """Build the encoder that `architecture` (`model_type` and its numbers) describes on the meta device.

    It has shapes and no weights: nothing is downloaded and nothing but counting is possible.
    """
    from transformers import AutoConfig

    if "model_type" not in architecture:
        raise UserError("this model's config names no architecture: add architecture.model_type and its numbers")
    try:
        config = AutoConfig.for_model(**architecture)
        with torch.device("meta"), quiet():
            model = _auto_class(config, answers_through).from_config(config, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # transformers checks numbers in many ways
        raise UserError(f"model.architecture does not describe a model: {_reason(error)}") from error
    return _backbone(model, set(), None, None, answers_through)


def _backbone(
    model: Any,
    missing: set[str],
    dropout: float | None,
    processor: Any,
    answers_through: AnswersThrough,
    tokenizer: Any = None,
) -> Backbone:
    """Take the encoder out of transformers' model, in the form that class builds it (RoBERTa: no pooler)."""
    name = "vision_model" if answers_through == "class_texts" else encoder_name(model)
    encoder = model.get_submodule(name)
    inside = f"{name}."
    fresh = {name.removeprefix(inside) for name in missing if name.startswith(inside)}
    sites = find_sites(encoder, processor, fresh)
    if lacking := sorted(name for name in fresh if not any(part in name for part in _MAY_BE_FRESH)):
        raise UserError(
            f"the checkpoint lacks {len(lacking)} of the encoder's tensors ({lacking[0]}, …): it is of another"
            " architecture, or of other sizes than its config.json says"
        )
    encoder.requires_grad_(False)
    encoder.eval()
    if sites.image is not None and sites.image.any_size and interpolates_when_asked(encoder):
        encoder.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {INTERPOLATE: True}), with_kwargs=True
        )
    if dropout is not None:
        set_dropout(model, dropout)
    if answers_through == "masked_lm":
        return Backbone(encoder, type(model), sites, {}, dropout, language_model=model.requires_grad_(False).eval())
    if answers_through == "class_texts":
        towers = model.requires_grad_(False).eval()
        return Backbone(encoder, type(model), sites, {}, dropout, towers=towers, tokenizer=tokenizer)
    saved = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if not name.startswith(inside) and name not in missing
    }
    return Backbone(encoder, type(model), sites, saved, dropout, config=model.config)


def encoder_name(model: Any) -> str:
    """Return the name of the encoder inside a model with a head; UserError where there is none."""
    name: str = model.base_model_prefix
    if hasattr(model, name):
        return name
    for name, child in model.named_children():  # CLIP
        if hasattr(child, "base_model_prefix"):
            return name
    raise UserError(f"unknown architecture {type(model).__name__}: it holds no encoder beside its head")


@contextmanager
def quiet() -> Iterator[None]:
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

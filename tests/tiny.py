"""Tiny random classifiers of every supported architecture, of texts and of images."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.image_classifier import ImageClassifier
from peftbench.backbones.load import Backbone
from peftbench.backbones.sites import find_sites
from peftbench.methods import METHODS
from peftbench.methods.parts import PartsConfig
from peftbench.tasks.text.batching import EncodedTexts

_BERT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
}
ARCHITECTURES: dict[str, dict] = {
    "bert": _BERT,
    "roberta": {**_BERT, "pad_token_id": 1},
    "xlm-roberta": {**_BERT, "pad_token_id": 1},
    "electra": {**_BERT, "embedding_size": 16},
    "mpnet": {**_BERT, "pad_token_id": 1},
    "distilbert": {
        "vocab_size": 120,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "max_position_embeddings": 66,
        "initializer_range": 0.2,
    },
    "deberta-v2": {
        **_BERT,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "modernbert": {
        **_BERT,
        "num_hidden_layers": 4,  # every third attends to all tokens, the others to a window
        "local_attention": 8,
        "pad_token_id": 1,
        "cls_token_id": 2,
        "bos_token_id": 2,
        "sep_token_id": 3,
        "eos_token_id": 3,
    },
    "camembert": {**_BERT, "pad_token_id": 1},  # no entry of its own: recognised by its structure
}

_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.2,
}
# the model type, and its numbers
IMAGE_ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "vit": ("vit", _VIT),
    "deit": ("deit", {**_VIT, "architectures": ["DeiTForImageClassification"]}),
    "dinov2": ("dinov2", {**_VIT, "mlp_ratio": 2, "layerscale_value": 0.5}),
    "dinov2-gated": ("dinov2", {**_VIT, "mlp_ratio": 2, "layerscale_value": 0.5, "use_swiglu_ffn": True}),
    "dinov2-registers": (
        "dinov2_with_registers",
        {**_VIT, "mlp_ratio": 2, "layerscale_value": 0.5, "num_register_tokens": 3},
    ),
    "beit": ("beit", {**_VIT, "layer_scale_init_value": 0.5, "use_relative_position_bias": True}),
    "clip": ("clip", {"vision_config": _VIT}),
    "siglip": ("siglip", {"vision_config": _VIT}),
    "yolos": ("yolos", {**_VIT, "image_size": [32, 32], "num_detection_tokens": 3}),
    "data2vec-vision": ("data2vec-vision", {**_VIT, "layer_scale_init_value": 0.5, "use_relative_position_bias": True}),
    "ijepa": ("ijepa", _VIT),  # no special token; recognised by its structure
}
EVERY_ARCHITECTURE = [*ARCHITECTURES, *IMAGE_ARCHITECTURES]


def method_configs() -> dict[str, Any]:
    """Each method for texts that answers through transformers' classifier, with its defaults.

    One that is made of runs has two of them; peft, which knows few models, is on all maps.
    """
    names = [
        n
        for n, cls in METHODS.items()
        if "texts" in cls.modalities and cls.answers_through == "classifier" and n != "peft"
    ]
    configs = {name: METHODS[name].config_class() for name in names}
    for name, config in configs.items():
        if isinstance(config, PartsConfig):
            configs[name] = replace(config, runs={"a": "a", "b": "b"})
    if find_spec("peft") is not None:
        configs["peft"] = METHODS["peft"].config_class("lora", {"target_modules": "all-linear"})
    return configs


def tiny_model(architecture: str, num_labels: int = 2, seed: int = 0, **settings: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    if architecture in IMAGE_ARCHITECTURES:
        model_type, numbers = IMAGE_ARCHITECTURES[architecture]
        config = AutoConfig.for_model(model_type, **{**numbers, **settings}, num_labels=num_labels)
        known = type(config) in AutoModelForImageClassification._model_mapping
        return _drawn_wide((AutoModelForImageClassification if known else ImageClassifier).from_config(config).eval())
    config = AutoConfig.for_model(architecture, **{**ARCHITECTURES[architecture], **settings}, num_labels=num_labels)
    return AutoModelForSequenceClassification.from_config(config).eval()


@torch.no_grad()
def _drawn_wide(model: PreTrainedModel) -> PreTrainedModel:
    """Fill what some of these models draw close to zero or leave at it."""
    for name, parameter in model.named_parameters():
        if parameter.std() < 0.1 and "norm" not in name and "lambda" not in name:
            parameter.normal_(std=0.2)
    return model


def tiny_inputs(architecture: str) -> dict[str, torch.Tensor]:
    """Three rows: texts of three lengths, or images of the size that the model was made for."""
    if architecture in ARCHITECTURES:
        return tiny_batch()
    return {"pixel_values": torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))}


def headed(model: PreTrainedModel, fresh: frozenset[str] = frozenset()) -> HeadedBackbone:
    """A classifier as `add_head` would have made it, its weights as they are."""
    sites = find_sites(model, fresh=fresh)
    backbone = Backbone(sites.base, type(model), find_sites(sites.base, fresh=fresh))
    shared = {id(p) for _, p in sites.backbone_parameters()}
    return HeadedBackbone(backbone, model, sites, {n: p for n, p in model.named_parameters() if id(p) not in shared})


def tiny_batch(padded: bool = True, vocabulary: int = 120) -> dict[str, torch.Tensor]:
    """Three rows of lengths 9, 5 and 12, as token ids from 5 on; padding is token 1 and masked."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, vocabulary, (3, 12), generator=generator)
    if not padded:
        return {"input_ids": ids}
    mask = (torch.arange(12)[None] < torch.tensor([9, 5, 12])[:, None]).long()
    return {"input_ids": ids.where(mask.bool(), torch.tensor(1)), "attention_mask": mask}


def encoded_texts(rows: list[dict], labels: torch.Tensor | None, padding: dict[str, int]) -> EncodedTexts:
    """A tokenized split from the token ids of each row."""
    columns = {name: np.array([token for row in rows for token in row[name]], np.int32) for name in padding}
    lengths = [len(next(iter(row.values()))) for row in rows]
    return EncodedTexts(columns, np.cumsum([0, *lengths]), labels, padding)

"""Tiny random classifiers of architectures that are recognised by their structure, without a layout of their own."""

import torch
from tiny import _BERT as BERT
from tiny import ARCHITECTURES
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

SMALL = {**BERT, "type_vocab_size": 2}
PADDED = {**SMALL, "pad_token_id": 1}
RECOGNISED: dict[str, dict] = {
    "big_bird": {**SMALL, "block_size": 4, "num_random_blocks": 1, "max_position_embeddings": 256},
    "convbert": {**SMALL, "embedding_size": 32, "head_ratio": 2, "conv_kernel_size": 3},
    "data2vec-text": PADDED,
    "ernie": SMALL,
    "layoutlm": SMALL,
    "longformer": {**PADDED, "attention_window": 4},
    "luke": {**PADDED, "entity_vocab_size": 10, "entity_emb_size": 16},
    "markuplm": PADDED,
    "nystromformer": SMALL,
    "rembert": {**SMALL, "input_embedding_size": 24, "output_embedding_size": 24},
    "roc_bert": SMALL,
    "roformer": {**SMALL, "embedding_size": 32},
    "tapas": SMALL,
    "xmod": {**PADDED, "languages": ["en_XX"], "default_language": "en_XX", "adapter_reduction_factor": 2},
    "yoso": SMALL,
}


def recognised_model(architecture: str, **settings) -> PreTrainedModel:
    torch.manual_seed(0)
    settings = {**RECOGNISED.get(architecture, ARCHITECTURES.get(architecture, {})), "num_labels": 2, **settings}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(architecture, **settings)).eval()

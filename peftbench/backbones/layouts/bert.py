"""BERT, RoBERTa, XLM-R, ELECTRA and their relatives."""

from peftbench.backbones.layouts.base import BERT_FFN, BERT_OUTPUT, Layout

LAYOUT = Layout(
    "bert",
    encoder="encoder",
    encoder_input="embedding_hidden_mapping_in",  # RemBERT
    layers="encoder.layer",
    self_attention="attention.self",
    sites={
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        **BERT_OUTPUT,
        **BERT_FFN,
    },
)

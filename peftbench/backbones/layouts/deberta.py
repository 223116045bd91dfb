"""DeBERTa-v2 and v3."""

from peftbench.backbones.layouts.base import BERT_FFN, BERT_OUTPUT, Layout

LAYOUT = Layout(
    "deberta",
    encoder="encoder",
    rows_prepended=True,
    multiplicative_mask=True,
    layers="encoder.layer",
    self_attention="attention.self",
    sites={
        "attention.query": "attention.self.query_proj",
        "attention.key": "attention.self.key_proj",
        "attention.value": "attention.self.value_proj",
        **BERT_OUTPUT,
        **BERT_FFN,
    },
)

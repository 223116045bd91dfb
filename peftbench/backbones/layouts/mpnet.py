"""MPNet."""

from peftbench.backbones.layouts.base import BERT_FFN, Layout

LAYOUT = Layout(
    "mpnet",
    encoder="encoder",
    rows_prepended=True,
    layers="encoder.layer",
    self_attention="attention.attn",
    sites={
        "attention.query": "attention.attn.q",
        "attention.key": "attention.attn.k",
        "attention.value": "attention.attn.v",
        "attention.output": "attention.attn.o",
        "attention.residual": "attention.dropout",
        "attention.norm": "attention.LayerNorm",
        **BERT_FFN,
    },
)

"""DistilBERT: it has no dropout behind the attention, the output projection ends that sub-layer."""

from peftbench.backbones.layouts.base import Layout

LAYOUT = Layout(
    "distilbert",
    encoder="transformer",
    layers="transformer.layer",
    self_attention="attention",
    sites={
        "attention.query": "attention.q_lin",
        "attention.key": "attention.k_lin",
        "attention.value": "attention.v_lin",
        "attention.output": "attention.out_lin",
        "attention.residual": "attention.out_lin",
        "attention.norm": "sa_layer_norm",
        "ffn.up": "ffn.lin1",
        "ffn.down": "ffn.lin2",
        "ffn.residual": "ffn.dropout",
        "ffn.norm": "output_layer_norm",
    },
)

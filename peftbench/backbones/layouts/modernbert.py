"""ModernBERT: norms before the sub-layers, query, key and value in one map, a gated feed-forward part.

`ffn.up` is the whole of `Wi`: what is activated, then what it is multiplied with.
"""

from peftbench.backbones.layouts.base import FusedSlice, Layout

LAYOUT = Layout(
    "modernbert",
    layers="layers",
    self_attention="attn",
    pre_norm=True,
    final_norms=("final_norm",),
    sites={
        "attention.query": FusedSlice("attn.Wqkv", 0, 3),
        "attention.key": FusedSlice("attn.Wqkv", 1, 3),
        "attention.value": FusedSlice("attn.Wqkv", 2, 3),
        "attention.output": "attn.Wo",
        "attention.residual": "attn.out_drop",
        "attention.norm": "attn_norm",  # nothing but the identity in the first layer
        "ffn.up": "mlp.Wi",
        "ffn.down": "mlp.Wo",
        "ffn.residual": "mlp.Wo",
        "ffn.norm": "mlp_norm",
    },
)

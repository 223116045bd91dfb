"""ViT and its kin: DeiT, BEiT, ViT-MSN, I-JEPA.

The dropout behind a sub-layer is one module that the attention and the feed-forward part share, so that a sub-layer
ends with its last map; the dropout's rate is 0 unless a config sets it. In BEiT LayerScale is a factor and no module:
its residual sites lie inside of it.
"""

from peftbench.backbones.layouts.base import PROJECTIONS, Layout

LAYOUT = Layout(
    "vit",
    layers="layers",
    self_attention="attention",
    pre_norm=True,
    special_tokens=("cls_token", "distillation_token"),
    patches="embeddings.patch_embeddings.projection",
    final_norms=("layernorm", "pooler.layernorm"),  # BEiT norms the mean of the patches
    position_biases=("shared_position_bias", "relative_position_bias"),
    sites={
        **PROJECTIONS,
        "attention.norm": "layernorm_before",
        "attention.residual": "attention.o_proj",
        "ffn.up": "mlp.fc1",
        "ffn.down": "mlp.fc2",
        "ffn.residual": "mlp.fc2",
        "ffn.norm": "layernorm_after",
    },
)

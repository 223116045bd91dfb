"""CLIP's vision tower: a norm stands before the first layer, sub-layers end with their last map.

Transformers' classifier reads the mean of the patches in front of the last norm, which is no site therefore.
"""

from peftbench.backbones.layouts.base import Layout

LAYOUT = Layout(
    "clip",
    inside="vision_model",
    layers="encoder.layers",
    self_attention="self_attn",
    pre_norm=True,
    embeddings="pre_layrnorm",  # so spelled
    special_tokens=("class_embedding",),
    patches="embeddings.patch_embedding",
    unread=("post_layernorm",),  # of the class token, for the tower of texts
    sites={
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.out_proj",
        "attention.residual": "self_attn.out_proj",
        "attention.norm": "layer_norm1",
        "ffn.up": "mlp.fc1",
        "ffn.down": "mlp.fc2",
        "ffn.residual": "mlp.fc2",
        "ffn.norm": "layer_norm2",
    },
)

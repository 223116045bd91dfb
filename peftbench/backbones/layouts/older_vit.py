"""ViTs whose layers have BERT's names, as transformers named them all before 5: Data2Vec's tower of images, YOLOS.

LayerScale is a factor and no module, so that residual sites lie inside of it. YOLOS has tokens for objects behind its
patches and adds positions between its layers too. Data2Vec's attention goes through no function of transformers'
registry: a prefix cannot reach it.
"""

from peftbench.backbones.layouts.base import Layout

LAYOUT = Layout(
    "older_vit",
    layers="encoder.layer",
    self_attention="attention.attention",
    pre_norm=True,
    embeddings="embeddings.dropout",  # Data2Vec's embeddings also return the grid
    special_tokens=("cls_token",),
    tokens_behind=("detection_tokens",),
    patches="embeddings.patch_embeddings.projection",
    final_norms=("layernorm", "pooler.layernorm"),  # Data2Vec norms the mean of the patches, as BEiT does
    unread=("pooler.dense",),  # YOLOS' and DPT's
    position_biases=("relative_position_bias",),
    positions_between="encoder.interpolation",
    sites={
        "attention.query": "attention.attention.query",
        "attention.key": "attention.attention.key",
        "attention.value": "attention.attention.value",
        "attention.output": "attention.output.dense",
        "attention.residual": "attention.output.dropout",
        "attention.norm": "layernorm_before",
        "ffn.up": "intermediate.dense",
        "ffn.down": "output.dense",
        "ffn.residual": "output.dropout",
        "ffn.norm": "layernorm_after",
    },
)

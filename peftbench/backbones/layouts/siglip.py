"""SigLIP's vision tower: CLIP's without a class token and without a norm before the first layer."""

from dataclasses import replace

from peftbench.backbones.layouts.clip import LAYOUT as CLIP

LAYOUT = replace(
    CLIP,
    name="siglip",
    embeddings="embeddings",
    special_tokens=(),
    final_norms=("post_layernorm",),
    unread=("head",),  # pools the patches for the tower of texts
)

"""DINOv2, with registers too.

LayerScale ends both sub-layers: a residual site lies outside of it, on the scale of the residual stream; what changes
a linear map's output lies inside.
"""

from peftbench.backbones.layouts.base import LAYER_SCALED, PROJECTIONS, Layout

LAYOUT = Layout(
    "dinov2",
    layers="encoder.layer",
    self_attention="attention",
    pre_norm=True,
    special_tokens=("cls_token", "register_tokens"),
    patches="embeddings.patch_embeddings.projection",
    final_norms=("layernorm",),
    sites={**PROJECTIONS, **LAYER_SCALED, "ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2"},
)

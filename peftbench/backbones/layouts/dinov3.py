"""DINOv3, with a gated feed-forward part or a plain one, whose maps have the same names; positions are rotary.

Residual sites lie outside of LayerScale, as in DINOv2. The gate is no site.
"""

from dataclasses import replace

from peftbench.backbones.layouts.base import GATED
from peftbench.backbones.layouts.dinov2 import LAYOUT as DINOV2

LAYOUT = replace(
    DINOV2,
    name="dinov3",
    layers="model.layer",
    patches="embeddings.patch_embeddings",
    final_norms=("norm",),
    sites=DINOV2.sites | GATED,
)

"""DINOv2 with a gated feed-forward part (giant): `ffn.up` is the map that is not activated, the gate is no site."""

from dataclasses import replace

from peftbench.backbones.layouts.base import GATED
from peftbench.backbones.layouts.dinov2 import LAYOUT as PLAIN

LAYOUT = replace(PLAIN, name="dinov2_gated", sites=PLAIN.sites | GATED)

"""How ViT-Adapter's official code draws its linear maps and convolutions before training."""

import math

from torch import nn

from peftbench.methods.deformable_attention import DeformableAttention


def draw_start(module: nn.Module) -> None:
    """Draw every linear map and convolution inside a module; deformable attention has a start of its own."""
    for child in module.children():
        if isinstance(child, DeformableAttention):
            continue
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=0.02)
            nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = math.prod(child.kernel_size) * child.out_channels // child.groups
            nn.init.normal_(child.weight, std=math.sqrt(2 / fan_out))
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        draw_start(child)

"""ViT-Adapter's output (Chen et al. 2023, §3.1): four maps of its tokens, its prior and the ViT's states."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.batch_norm import BatchNorm

_LEVELS = 4


class Pyramid(nn.Module):
    """The finest map is the prior's and the next one up-sampled; a batch norm ends each."""

    def __init__(self, width: int) -> None:
        """`width`: of every map."""
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(_LEVELS))

    def forward(
        self, finest: torch.Tensor, maps: Sequence[torch.Tensor], states: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return four maps, (batch, width, rows, columns) with 4, 2, 1 and ½ cells a patch.

        Args:
            finest: the prior's, 4 cells a patch. maps: of the tokens, the finest first.
            states: of the ViT's patches, (batch, width, rows, columns), one for each of the four maps.
        """
        found = []
        for each, state, norm in zip([self.up(maps[0]) + finest, *maps], states, self.norms, strict=True):
            if state.shape != each.shape:
                state = F.interpolate(state, each.shape[-2:], mode="bilinear", align_corners=False)
            found.append(norm(each + state.to(each.dtype)))
        return found


def count_pyramid(width: int) -> int:
    """(4·width + 1)·width in the up-sampling, 8·width in the norms."""
    return (4 * width + 1) * width + 2 * _LEVELS * width

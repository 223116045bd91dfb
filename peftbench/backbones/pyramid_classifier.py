"""A classifier on the pyramid that a method makes; ours, for ViT-Adapter's authors classify no images."""

from collections.abc import Sequence

import torch
from torch import nn

from peftbench.backbones.dense_heads import put_on_maps
from peftbench.backbones.feature_maps import Grid
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone


class PyramidClassifier(nn.Module):
    """A linear map of the means of the four maps, one behind the other: every part of the pyramid is read."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(4 * width, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, states: torch.Tensor, grid: Grid, maps: Sequence[torch.Tensor] | None) -> torch.Tensor:
        """Return logits, (batch, classes); without a pyramid the mean of the patches stands for each mean."""
        means = [states.mean(1)] * 4 if maps is None else [each.mean((2, 3)) for each in maps]
        logits: torch.Tensor = self.classifier(torch.cat(means, 1))
        return logits


def add_pyramid_classifier(backbone: Backbone, classes: int) -> HeadedBackbone:
    """Put a new classifier on a backbone whose method makes a pyramid of its width; its start is drawn by torch."""
    sites = backbone.sites
    return put_on_maps(backbone, lambda: PyramidClassifier(sites.hidden, classes), [len(sites.layers) - 1])

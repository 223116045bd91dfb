"""Heads that answer at every place of a map: for segmentation and detection."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.batch_norm import BatchNorm, with_batch_norms
from peftbench.backbones.feature_maps import Grid, PlainPyramid, ResizedPyramid, as_map, patch_states
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone
from peftbench.backbones.sites import Sites

# behind the heat maps of detection: log width, log height (in cells), offset in x, offset in y
BOX_CHANNELS = 4
# features inside the heads
_HIDDEN, _POINTS_HIDDEN = 128, 64
_RARE = -2.19  # logit of 0.1, where heat maps start: nearly all cells are background


class LinearHead(nn.Module):
    """Batch norm and one linear map at every patch (Oquab et al., DINOv2, 2023, §7.4: linear segmentation)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm, self.classifier = _linear(width, classes)

    def forward(self, states: torch.Tensor, grid: Grid, maps: Sequence[torch.Tensor] | None) -> torch.Tensor:
        """Return logits, (batch, classes, rows, columns), at the patches."""
        logits: torch.Tensor = self.classifier(self.norm(as_map(states, grid)))
        return logits


def _linear(width: int, classes: int) -> nn.Sequential:
    classifier = nn.Conv2d(width, classes, 1)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]
    return nn.Sequential(BatchNorm(width), classifier)


class LinearPyramid(nn.Module):
    """Batch norm and one linear map at every place of each map that a method makes; the logits are summed."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.pyramid = ResizedPyramid(width)
        self.heads = nn.ModuleList(_linear(each, classes) for each in self.pyramid.widths)

    def forward(self, states: torch.Tensor, grid: Grid, maps: Sequence[torch.Tensor] | None) -> torch.Tensor:
        """Return logits, (batch, classes, rows, columns), at the finest map."""
        if maps is None:
            maps = self.pyramid(as_map(states, grid))
        logits: torch.Tensor = self.heads[0](maps[0])
        for head, each in zip(self.heads[1:], maps[1:], strict=True):
            logits = logits + F.interpolate(head(each), logits.shape[-2:], mode="bilinear", align_corners=False)
        return logits


class UperNet(nn.Module):
    """Transformers' UperNet head on a pyramid (Xiao et al. 2018)."""

    def __init__(self, width: int, joined: int, classes: int, method_makes_pyramid: bool) -> None:
        """Build it.

        Args:
            width: features of a layer. joined: of how many layers the states are. classes: of pixels.
            method_makes_pyramid: whether the maps are given, else they are made of the states.
        """
        from transformers import UperNetConfig
        from transformers.models.upernet.modeling_upernet import UperNetHead

        super().__init__()
        self.method_makes_pyramid = method_makes_pyramid
        self.pyramid = ResizedPyramid(width) if method_makes_pyramid else PlainPyramid(width, joined)
        config = UperNetConfig(hidden_size=_HIDDEN, num_labels=classes)
        self.decoder = with_batch_norms(UperNetHead(config, list(self.pyramid.widths)))

    def forward(self, states: torch.Tensor, grid: Grid, maps: Sequence[torch.Tensor] | None) -> torch.Tensor:
        """Return logits, (batch, classes, rows, columns), at the finest map of the pyramid."""
        if maps is None or not self.method_makes_pyramid:
            maps = self.pyramid(as_map(states, grid))
        logits: torch.Tensor = self.decoder(maps)
        return logits


class CenterPoints(nn.Module):
    """Heat maps and boxes on the finest map of a pyramid, whose maps are summed from the coarsest on.

    Lin et al., Feature Pyramid Networks (2017), §3, without a prediction of its own at the coarser maps; outputs as of
    Zhou, Wang & Krähenbühl, Objects as Points (2019).
    """

    def __init__(self, width: int, joined: int, classes: int, method_makes_pyramid: bool) -> None:
        """Take what `UperNet` takes; `classes` of objects."""
        super().__init__()
        self.method_makes_pyramid = method_makes_pyramid
        self.pyramid = ResizedPyramid(width) if method_makes_pyramid else PlainPyramid(width, joined)
        self.lateral = nn.ModuleList(nn.Conv2d(each, _POINTS_HIDDEN, 1) for each in self.pyramid.widths)
        self.smooth = _convolution(_POINTS_HIDDEN)
        self.heat = nn.Sequential(_convolution(_POINTS_HIDDEN), nn.Conv2d(_POINTS_HIDDEN, classes, 1))
        self.boxes = nn.Sequential(_convolution(_POINTS_HIDDEN), nn.Conv2d(_POINTS_HIDDEN, BOX_CHANNELS, 1))
        nn.init.constant_(self.heat[-1].bias, _RARE)  # type: ignore[arg-type]

    def forward(self, states: torch.Tensor, grid: Grid, maps: Sequence[torch.Tensor] | None) -> torch.Tensor:
        """Return (batch, classes + 4, rows, columns): logits of the heat maps, log width and height, offsets."""
        if maps is None or not self.method_makes_pyramid:
            maps = self.pyramid(as_map(states, grid))
        *finer, x = (lateral(each) for lateral, each in zip(self.lateral, maps, strict=True))
        for each in reversed(finer):
            x = each + F.interpolate(x, each.shape[-2:], mode="bilinear", align_corners=False)
        x = self.smooth(x)
        return torch.cat([self.heat(x), self.boxes(x)], 1)


def _convolution(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), BatchNorm(width), nn.ReLU(inplace=True))


class DenseModel(nn.Module):
    """An encoder under a head that reads maps of its features: what a batch of pixels is given to."""

    base_model_prefix = "encoder"
    main_input_name = "pixel_values"

    def __init__(self, sites: Sites, layers: Sequence[int], head: nn.Module) -> None:
        """`layers`: numbers of those whose outputs the head reads, d features each."""
        super().__init__()
        self.encoder, self.head = sites.base, head
        self.config: Any = sites.base.config
        self._sites, self._layers = sites, layers

    @property
    def head_width(self) -> int:
        """Width of what enters the head."""
        return len(self._layers) * self._sites.hidden

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """(batch, 3, height, width) → an object with `.logits`, (batch, outputs, rows, columns)."""
        states, grid = patch_states(self._sites, self._layers, pixel_values)
        return SimpleNamespace(logits=self.head(states, grid, self._sites.attachments.pyramid()))


# made from features of a layer, how many layers are joined, classes, and whether the method makes the pyramid
DENSE_HEADS: dict[str, Callable[[int, int, int, bool], nn.Module]] = {
    "linear": lambda d, joined, classes, method_makes_pyramid: (LinearPyramid if method_makes_pyramid else LinearHead)(
        joined * d, classes
    ),
    "upernet": UperNet,
    "center_points": CenterPoints,
}


def add_dense_head(
    backbone: Backbone, kind: str, classes: int, layers: int = 1, method_makes_pyramid: bool = False
) -> HeadedBackbone:
    """Put a new head that answers at every place of a map on a backbone, on the device the backbone is on.

    Args:
        backbone: of images. kind: out of `DENSE_HEADS`. classes: of pixels or of objects.
        layers: of how many, evenly spaced and the last among them, the head reads the outputs.
        method_makes_pyramid: d features a map; no layer but the last is read then.

    Its start is drawn from torch's generator.
    """
    depth = len(backbone.sites.layers)
    numbers = (
        [depth - 1] if method_makes_pyramid else sorted({-(-depth * (i + 1) // layers) - 1 for i in range(layers)})
    )
    width, joined = backbone.sites.hidden, len(numbers)
    return put_on_maps(backbone, lambda: DENSE_HEADS[kind](width, joined, classes, method_makes_pyramid), numbers)


def put_on_maps(backbone: Backbone, build: Callable[[], nn.Module], layers: Sequence[int]) -> HeadedBackbone:
    """Put the head that `build` makes on a backbone of images, on the device the backbone is on.

    Args:
        layers: numbers of those whose outputs the head reads.
    """
    sites = backbone.sites
    with torch.device("meta" if sites.device.type == "meta" else "cpu"):  # a GPU's generator draws other numbers
        head = build()
    model = DenseModel(sites, layers, head.to(sites.device))
    model.eval()
    parameters = {f"head.{name}": parameter for name, parameter in head.named_parameters()}
    sites = replace(sites, model=model, head_modules=(head,), layout=sites.layout.below_pooler())
    return HeadedBackbone(backbone, model, sites, parameters)

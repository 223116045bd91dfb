"""BitFit (Ben Zaken et al. 2022): every bias of the backbone trains, the pooler's included."""

from dataclasses import dataclass

from peftbench.backbones.sites import Sites
from peftbench.methods.base import Method


@dataclass(frozen=True)
class BitfitConfig:
    """BitFit has no settings of its own."""


class Bitfit(Method, name="bitfit"):
    """All biases: linear maps, layer norms and the pooler, as in the official code (glue_evaluator.py)."""

    config_class = BitfitConfig

    def __init__(self, config: BitfitConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.train_backbone(sites, [n for n, _ in sites.backbone_parameters() if n.endswith("bias")])

    @staticmethod
    def count(config: BitfitConfig, sites: Sites) -> int:
        """7d + d_ff a layer (four attention maps, two FFN maps, two norms), and the biases outside the layers."""
        outside = sum(p.numel() for name, p in sites.parameters_outside_layers() if name.endswith("bias"))
        return len(sites.layers) * (7 * sites.hidden + sites.intermediate) + outside

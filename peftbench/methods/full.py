"""Full fine-tuning: every parameter of the backbone trains that its answers depend on."""

from dataclasses import dataclass

from peftbench.backbones.sites import Sites
from peftbench.methods.base import Method


@dataclass(frozen=True)
class FullConfig:
    """Full fine-tuning has no settings of its own."""


class Full(Method, name="full"):
    """The baseline all others are held against."""

    config_class = FullConfig

    def __init__(self, config: FullConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.train_backbone(sites, [name for name, _ in sites.read_parameters()])

    @staticmethod
    def count(config: FullConfig, sites: Sites) -> int:
        """All of the backbone that is read."""
        return sum(p.numel() for _, p in sites.read_parameters())

"""Linear probe: the backbone stays as it is, only the task's head trains."""

from dataclasses import dataclass

from peftbench.backbones.sites import Sites
from peftbench.methods.base import Method


@dataclass(frozen=True)
class HeadConfig:
    """The linear probe has no settings of its own."""


class Head(Method, name="head"):
    """The floor every method must beat."""

    config_class = HeadConfig

    def first_layer(self, sites: Sites) -> int:
        """Return the number of layers: none is changed."""
        return len(sites.layers)

    @staticmethod
    def count(config: HeadConfig, sites: Sites) -> int:
        """Nothing but the head, which is counted apart."""
        return 0

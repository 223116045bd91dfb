"""Norm tuning: weights and biases of all layer norms of the backbone train, from their pretrained values.

As a method of its own in Basu et al. 2024 (Strong baselines for parameter-efficient few-shot fine-tuning) and in Mai et
al. 2025 (Lessons and insights from a unifying study of parameter-efficient fine-tuning in visual recognition, "LN").
"""

from dataclasses import dataclass

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method
from peftbench.methods.layer_norms import count_layer_norms, layer_norm_names


@dataclass(frozen=True)
class NormsConfig:
    """Norm tuning has no settings of its own."""


class Norms(Method, name="norms"):
    """All layer norms: of the layers, of the embeddings and a final one."""

    config_class = NormsConfig

    def __init__(self, config: NormsConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        names = layer_norm_names(sites, list(range(len(sites.layers))))
        if not names:
            raise UserError(f"method=norms has nothing to train: {type(sites.base).__name__} has no layer norms")
        self.train_backbone(sites, names)

    @staticmethod
    def count(config: NormsConfig, sites: Sites) -> int:
        """2d a norm, d without a bias: (2L + 1)·2d in a vision transformer of L layers."""
        return count_layer_norms(sites, list(range(len(sites.layers))))

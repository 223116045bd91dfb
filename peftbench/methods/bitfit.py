"""BitFit (Ben Zaken et al. 2022): every bias of the backbone trains, the pooler's included."""

from dataclasses import dataclass

from peftbench.backbones.sites import LINEAR_SITES, NORM_SITES, Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method


@dataclass(frozen=True)
class BitfitConfig:
    """BitFit has no settings of its own."""


class Bitfit(Method, name="bitfit"):
    """All biases: linear maps, layer norms and the pooler, as in the official code (glue_evaluator.py)."""

    config_class = BitfitConfig

    def __init__(self, config: BitfitConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        biases = [name for name, _ in sites.read_parameters() if name.endswith("bias")]
        if not biases:
            raise UserError(f"method=bitfit has nothing to train: {type(sites.base).__name__} has no biases")
        self.train_backbone(sites, biases)

    @staticmethod
    def count(config: BitfitConfig, sites: Sites) -> int:
        """d_out a linear map, d a norm (in BERT 7d + d_ff a layer), and the biases elsewhere (embeddings, pooler)."""
        maps = [site for name in LINEAR_SITES for site in sites.at(name)]
        norms = [site.module for name in NORM_SITES for site in sites.at(name)]
        count = sum(site.out_features for site in maps if site.bias is not None)
        count += sum(sites.hidden for norm in norms if getattr(norm, "bias", None) is not None)
        return count + sum(p.numel() for name, p in sites.parameters_outside_sites() if name.endswith("bias"))

"""Mix-and-match adapters (He et al. 2022, Towards a unified view, §4.6): a prefix and a scaled parallel adapter.

The prefix acts in the attention of every layer, the parallel adapter beside the feed-forward part: the two methods
`prefix` and `parallel`, together. Sizes follow the GLUE script of jxhe/unify-parameter-efficient-tuning
(exps/run_glue.sh), 16 keys, m = 16 and s = 2, and so does the prefix's network of 800, which is folded away on
saving; for its larger tasks the paper takes 30, 512 and 4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from peftbench.backbones.attachments import Handle
from peftbench.backbones.sites import Sites
from peftbench.methods.bottleneck import BottleneckConfig, BottleneckMethod
from peftbench.methods.parallel import Parallel, ParallelConfig
from peftbench.methods.prefix import Prefix, PrefixConfig


@dataclass(frozen=True)
class MamConfig(BottleneckConfig):
    """Settings of mix-and-match, beside those of `BottleneckConfig` (m = 16), which are the parallel adapter's.

    Attributes:
        scale: s, what the adapter's output is multiplied by.
        length: number of prefix keys and values a layer, in every layer.
        reparametrize: train them through a network, as `prefix` does, dropped after training.
        mid_dim: inner dimension of that network.
    """

    default_bottleneck: ClassVar[int] = 16
    scale: float = 2.0
    length: int = 16
    reparametrize: bool = True
    mid_dim: int = 800

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.prefix, self.parallel  # which check their own settings

    @property
    def prefix(self) -> PrefixConfig:
        """Settings of the prefix."""
        return PrefixConfig(length=self.length, reparametrize=self.reparametrize, mid_dim=self.mid_dim)

    @property
    def parallel(self) -> ParallelConfig:
        """Settings of the parallel adapter."""
        return ParallelConfig(self.bottleneck, self.reduction_factor, self.layers, scale=self.scale)


class Mam(BottleneckMethod, name="mam"):
    """A `Prefix` and a `Parallel`."""

    config_class = MamConfig
    config: MamConfig

    def __init__(self, config: MamConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.prefix = Prefix(config.prefix, sites)
        self.parallel = Parallel(config.parallel, sites)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Let both act."""
        yield from self.prefix.hook(sites)
        yield from self.parallel.hook(sites)

    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return all layers: each has a prefix, whichever have an adapter."""
        return range(len(sites.layers))

    def drop(self, layers: Iterable[int]) -> None:
        """Leave these layers without adapter and prefix."""
        self.prefix.drop(layers := list(layers))
        super().drop(layers)

    @property
    def extra_positions(self) -> int:
        """Each sequence is attended to with `length` more keys."""
        return self.prefix.extra_positions

    @property
    def keeps_first_token(self) -> bool:
        """As far as the prefix does."""
        return self.prefix.keeps_first_token

    def exported(self) -> tuple[MamConfig, dict[str, torch.Tensor]]:
        """Fold the prefix's network away."""
        tensors = {
            f"{name}.{key}": tensor
            for name, part in (("prefix", self.prefix), ("parallel", self.parallel))
            for key, tensor in part.exported()[1].items()
        }
        return replace(self.config, reparametrize=False), tensors

    @staticmethod
    def count(config: MamConfig, sites: Sites) -> int:
        """Those of the prefix and of the parallel adapter."""
        return Prefix.count(config.prefix, sites) + Parallel.count(config.parallel, sites)

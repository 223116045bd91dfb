"""LoRA (Hu et al. 2022), with rank-stabilised scaling (rsLoRA) and weight decomposition (DoRA).

W·x + b + s·B·A·dropout(x), s = alpha / rank. Initialisation follows microsoft/LoRA (layers.py:119-125), not
the paper: A Kaiming-uniform with a = √5, B zero.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method, check_at_least, check_dropout
from peftbench.methods.folding import Fold
from peftbench.methods.stacking import linear
from peftbench.methods.targets import check_targets, short_name, target_sites


@dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA.

    Attributes:
        rank: inner dimension r of the update B·A.
        alpha: scale numerator; the update is scaled by alpha / rank.
        dropout: on the update's input, while training.
        targets: linear sites: query, key, value, output (attention), up, down (FFN), or `all`.
        rslora: scale by alpha / √rank instead (Kalajdzievski 2023).
        dora: learn each output row's magnitude apart from its direction (Liu et al. 2024). It computes its maps' output
            anew: behind methods that act on the same maps it is refused, unless they are merged.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["query", "value"])
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        check_at_least("rank", self.rank, 1)
        check_dropout(self.dropout)
        check_targets(self.targets)
        if self.dora and self.dropout:
            raise UserError("method.dora=true takes no method.dropout: set method.dropout=0")

    @property
    def sites(self) -> list[str]:
        """Full names of the targets, in the order of a layer, each once."""
        return target_sites(self.targets)

    @property
    def scale(self) -> float:
        """What the update B·A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def lora(output: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Return output + scale·B·A·x.

    Args:
        output: (..., d_out), the linear map's own output. x: (..., d_in), its input.
        a: (r, d_in). b: (d_out, r). All may be stacked (see `peftbench.methods.stacking`).
        scale: alpha / rank.
    """
    inner = linear(x, a)
    if b.dim() == 3:
        return torch.baddbmm(output, inner, b.mT, alpha=scale)
    flat = output.reshape(-1, output.shape[-1])
    # one fused kernel instead of a product, a scaling and an addition
    return torch.addmm(flat, inner.reshape(-1, a.shape[0]), b.t(), alpha=scale).view(output.shape)


def dora_weight(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, magnitude: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return m·(W + scale·B·A) / ‖W + scale·B·A‖, the norm by output row and without gradient (DoRA §4.3).

    Under autocast it stays in the tensors' own type: a norm in bf16 would have three digits.

    Args:
        weight: (d_out, d_in). a: (r, d_in). b: (d_out, r). magnitude: (d_out,). All but the weight may be stacked.
        scale: alpha / rank.
    """
    with torch.autocast(weight.device.type, enabled=False):
        direction = weight + scale * (b @ a)
        # a row of zeros, in a pruned model, stays one
        norm = direction.detach().norm(dim=-1).clamp_min(torch.finfo(direction.dtype).tiny)
        return direction * (magnitude / norm)[..., None]


class Update(nn.Module):
    """The tensors of one target: A, B and, for DoRA, the magnitude of each output row."""

    def __init__(self, linear: Site, config: LoraConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, config.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.magnitude = nn.Parameter(linear.weight.detach().norm(dim=1)) if config.dora else None


class Lora(Method, name="lora"):
    """One `Update` a target and layer; it can be merged into the backbone's weights and taken out again."""

    config_class = LoraConfig
    config: LoraConfig

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.updates = nn.ModuleDict()
        for name in config.sites:
            linears = sites.at(name)
            smallest = min(linears[0].in_features, linears[0].out_features)
            if config.rank > smallest:
                raise UserError(
                    f"method.rank={config.rank} is larger than the dimension {smallest} of {name}:"
                    f" choose a rank of {smallest} or less"
                )
            self.updates[short_name(name)] = nn.ModuleList(Update(linear, config) for linear in linears)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Add each update to its linear map's output."""
        for site, update in self._pairs(sites):

            def apply(
                x: torch.Tensor, output: torch.Tensor, site: Site = site, update: Update = update
            ) -> torch.Tensor:
                if update.magnitude is not None:
                    return linear(x, self._merged_weight(site.weight, update), site.bias)
                if self.config.dropout:
                    # the backbone's mode, not our own
                    x = F.dropout(x, self.config.dropout, site.module.training)
                return lora(output, x, update.a, update.b, self.config.scale)

            yield site.replace_output(apply, recomputed_by="dora=true" if self.config.dora else None)

    def fold(self, sites: Sites) -> Iterable[tuple[Site, Fold]]:
        """Add each update to its linear map's weight."""
        for site, update in self._pairs(sites):
            yield site, partial(self._fold, update)

    def _fold(
        self, update: Update, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._merged_weight(weight, update), bias

    def _pairs(self, sites: Sites) -> Iterable[tuple[Site, Update]]:
        for name in self.config.sites:
            yield from zip(sites.at(name), self.updates[short_name(name)], strict=True)  # type: ignore

    def _merged_weight(self, weight: torch.Tensor, update: Update) -> torch.Tensor:
        if update.magnitude is not None:
            return dora_weight(weight, update.a, update.b, update.magnitude, self.config.scale)
        return weight + self.config.scale * (update.b @ update.a)

    @staticmethod
    def count(config: LoraConfig, sites: Sites) -> int:
        """r·(d_in + d_out) a target and layer, and d_out more for DoRA."""
        linears = [linear for name in config.sites for linear in sites.at(name)]
        a_map = (config.rank * (m.in_features + m.out_features) + config.dora * m.out_features for m in linears)
        return sum(a_map)

"""LoRA (Hu et al. 2022), with rank-stabilised scaling (rsLoRA) and weight decomposition (DoRA).

W·x + b + s·B·A·dropout(x), s = alpha / rank. Initialisation follows microsoft/LoRA (layers.py:119-125), not
the paper: A Kaiming-uniform with a = √5, B zero.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.sites import LINEAR_SITES, Sites
from peftbench.errors import UserError, nearest
from peftbench.methods.base import Handle, Method, check_at_least

_SHORT = {site.split(".")[1]: site for site in LINEAR_SITES}


@dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA.

    Attributes:
        rank: inner dimension r of the update B·A.
        alpha: scale numerator; the update is scaled by alpha / rank.
        dropout: on the update's input, while training.
        targets: linear sites: query, key, value, output (attention), up, down (FFN), or `all`.
        rslora: scale by alpha / √rank instead (Kalajdzievski 2023).
        dora: learn each output row's magnitude apart from its direction (Liu et al. 2024).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["query", "value"])
    rslora: bool = False
    dora: bool = False

    def __post_init__(self) -> None:
        check_at_least("rank", self.rank, 1)
        if not 0 <= self.dropout < 1:
            raise UserError(f"method.dropout={self.dropout:g} must lie in 0 … 1, 1 left out")
        if not self.targets:
            raise UserError(f"method.targets is empty: choose from {', '.join(_SHORT)} or all")
        for target in self.targets:
            if target != "all" and target not in _SHORT and target not in LINEAR_SITES:
                known = [*_SHORT, "all"]
                raise UserError(
                    f"method.targets: no linear site {target!r}. {nearest(target, known)}"
                    f" The sites are {', '.join(LINEAR_SITES)}; short names: {', '.join(known)}."
                )
        if self.dora and self.dropout:
            raise UserError("method.dora=true takes no method.dropout: set method.dropout=0")

    @property
    def sites(self) -> list[str]:
        """Full names of the targets, in the order of a layer, each once."""
        if "all" in self.targets:
            return list(LINEAR_SITES)
        wanted = {_SHORT.get(target, target) for target in self.targets}
        return [site for site in LINEAR_SITES if site in wanted]

    @property
    def scale(self) -> float:
        """What the update B·A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def lora(output: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Return output + scale·B·A·x.

    Args:
        output: (..., d_out), the linear map's own output. x: (..., d_in), its input.
        a: (r, d_in). b: (d_out, r).
        scale: alpha / rank.
    """
    inner = F.linear(x, a)
    flat = output.reshape(-1, output.shape[-1])
    # one fused kernel instead of a product, a scaling and an addition
    return torch.addmm(flat, inner.reshape(-1, a.shape[0]), b.t(), alpha=scale).view(output.shape)


def dora_weight(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, magnitude: torch.Tensor, scale: float
) -> torch.Tensor:
    """Return m·(W + scale·B·A) / ‖W + scale·B·A‖, the norm by output row and without gradient (DoRA §4.3).

    Args:
        weight: (d_out, d_in). a: (r, d_in). b: (d_out, r). magnitude: (d_out,).
        scale: alpha / rank.
    """
    direction = weight + scale * (b @ a)
    norm = direction.detach().norm(dim=1)
    return direction * (magnitude / norm)[:, None]


class Update(nn.Module):
    """The tensors of one target: A, B and, for DoRA, the magnitude of each output row."""

    def __init__(self, linear: nn.Linear, config: LoraConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, config.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.magnitude = nn.Parameter(linear.weight.detach().norm(dim=1)) if config.dora else None


class Lora(Method, name="lora"):
    """One `Update` a target and layer; it can be merged into the backbone's weights and taken out again."""

    config_class = LoraConfig
    config: LoraConfig
    mergeable = True

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self._unmerged: list[tuple[nn.Linear, torch.Tensor]] = []
        self.updates = nn.ModuleDict()
        for site in config.sites:
            linears: list[nn.Linear] = sites.at(site)  # type: ignore[assignment]
            smallest = min(linears[0].in_features, linears[0].out_features)
            if config.rank > smallest:
                raise UserError(
                    f"method.rank={config.rank} is larger than the dimension {smallest} of {site}:"
                    f" choose a rank of {smallest} or less"
                )
            self.updates[_SHORT_OF[site]] = nn.ModuleList(Update(linear, config) for linear in linears)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Add each update to its linear map's output."""
        for linear, update in self._pairs(sites):

            def apply(
                linear: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor, update: Update = update
            ) -> torch.Tensor:
                (x,) = args
                if update.magnitude is not None:
                    assert isinstance(linear, nn.Linear)
                    return F.linear(x, self._merged_weight(linear, update), linear.bias)
                if self.config.dropout:
                    x = F.dropout(x, self.config.dropout, linear.training)  # the backbone's mode, not our own
                return lora(output, x, update.a, update.b, self.config.scale)

            yield linear.register_forward_hook(apply)

    def _pairs(self, sites: Sites) -> Iterable[tuple[nn.Linear, Update]]:
        for site in self.config.sites:
            yield from zip(sites.at(site), self.updates[_SHORT_OF[site]], strict=True)  # type: ignore

    def _merged_weight(self, linear: nn.Linear, update: Update) -> torch.Tensor:
        if update.magnitude is not None:
            return dora_weight(linear.weight, update.a, update.b, update.magnitude, self.config.scale)
        return linear.weight + self.config.scale * (update.b @ update.a)

    @property
    def merged(self) -> bool:
        """Whether the updates are folded into the backbone's weights now."""
        return bool(self._unmerged)

    @torch.no_grad()
    def merge(self) -> None:
        """Fold the updates into the backbone's weights: no cost at inference from then on."""
        if not self.attached:
            raise UserError("attach the method before merging it")
        if self.merged:
            return
        unmerged = []
        for sites in self._sites:
            for linear, update in self._pairs(sites):
                unmerged.append((linear, linear.weight.data))
                linear.weight.data = self._merged_weight(linear, update)
        self._unhook()
        self._unmerged = unmerged

    def unmerge(self) -> None:
        """Put the backbone's own weights back, bit for bit."""
        if not self.merged:
            return
        for linear, weight in self._unmerged:
            linear.weight.data = weight
        self._unmerged = []
        for sites in self._sites:
            self._handles.extend(self.hook(sites))

    def detach(self) -> None:
        """Unmerge, then detach."""
        self.unmerge()
        super().detach()

    @staticmethod
    def count(config: LoraConfig, sites: Sites) -> int:
        """r·(d_in + d_out) a target, and d_out more for DoRA."""
        d, d_ff, r = sites.hidden, sites.intermediate, config.rank
        sizes = {"ffn.up": (d, d_ff), "ffn.down": (d_ff, d)}
        a_layer = 0
        for site in config.sites:
            d_in, d_out = sizes.get(site, (d, d))
            a_layer += r * (d_in + d_out) + (d_out if config.dora else 0)
        return len(sites.layers) * a_layer


_SHORT_OF = {site: short for short, site in _SHORT.items()}

"""Any tuner of Hugging Face peft under our trainer: `pip install 'peftbench[peft]'`.

peft puts its layers into a copy of the encoder. They are taken out of it, and while attached each computes in the
place of its module in the encoder itself, inside the hooks that others have on that module. What a tuner draws or
computes once and never trains (VeRA's projections, the places of FourierFT's coefficients) is saved with what trains.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method
from peftbench.methods.folding import Fold
from peftbench.methods.keys import escape, unescape
from peftbench.methods.peft_layers import inject, keep_all_tensors, merged, point, tuner_settings


@dataclass(frozen=True)
class PeftConfig:
    """Settings of a tuner of peft.

    Attributes:
        type: peft's name of it in lower case, such as vera.
        config: arguments of its config class; what is left out is as peft has it.
    """

    type: str = "lora"
    config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        tuner_settings(self.type, self.config)


class Peft(Method, name="peft"):
    """The layers of a tuner of peft, by the path of the module that each computes for."""

    config_class = PeftConfig
    config: PeftConfig

    def __init__(self, config: PeftConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.tuners = nn.ModuleDict()
        for path, tuner in inject(config.type, config.config, sites).items():
            point(tuner, sites.base.get_submodule(path))
            keep_all_tensors(tuner)
            self.tuners[escape(path)] = tuner
        # of this type with these settings
        self.mergeable = sites.device.type != "meta" and self._can_merge(sites)  # type: ignore[misc]

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Let each tuner compute in its module's place."""
        for site, tuner in self._pairs(sites):
            point(tuner, site.module)
            yield site.take_over(partial(_compute, site.module, tuner))

    def fold(self, sites: Sites) -> Iterable[tuple[Site, Fold]]:
        """Let each tuner merge itself into its module's weight and bias."""
        for site, tuner in self._pairs(sites):
            yield site, partial(merged, tuner)

    def merge(self) -> None:
        """Fold the tuner into the backbone's weights; UserError where this type, so set, cannot be."""
        if not self.mergeable:
            raise UserError(f"method.type={self.config.type} cannot be merged into the backbone's weights")
        super().merge()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return every tensor once: what layers share stands under its first name."""
        names: dict[int, str] = {}
        everything = super().state_dict(*args, **{**kwargs, "keep_vars": True})
        return {name: t.detach() for name, t in everything.items() if names.setdefault(id(t), name) == name}

    @staticmethod
    def count(config: PeftConfig, sites: Sites) -> int:
        """What peft itself makes trainable in an encoder of these shapes: arbitrary tuners have no common formula."""
        tuners = inject(config.type, config.config, sites, shapes_only=True)
        trained = {id(p): p for tuner in tuners.values() for p in tuner.parameters() if p.requires_grad}
        return sum(p.numel() for p in trained.values())

    def _pairs(self, sites: Sites) -> Iterator[tuple[Site, nn.Module]]:
        for key, tuner in self.tuners.items():
            path = unescape(key)
            yield Site(sites.base.get_submodule(path), name=path), tuner

    def _can_merge(self, sites: Sites) -> bool:
        """Tell whether peft merges this tuner, tried on its first module."""
        site, tuner = next(self._pairs(sites))
        module: Any = site.module
        try:
            merged(tuner, module.weight, getattr(module, "bias", None))
        except (NotImplementedError, AttributeError, TypeError, ValueError, RuntimeError):
            return False
        return True


def _compute(module: nn.Module, tuner: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
    if tuner.training != module.training:  # the backbone's mode
        tuner.train(module.training)
    output: torch.Tensor = tuner(*args, **kwargs)
    return output

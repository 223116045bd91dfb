"""AdapterFusion (Pfeiffer et al. 2021): attention over several trained adapters in the place of each one.

With x what the adapters of a place read, z_n = W_up·act(W_down·x + b_1) + b_2 the n-th one's output without its skip
(§3.2) and s = softmax over n of (Q·x + b_q)·(K·z_n + b_k), an adapter's output is replaced by Σ_n s_n·V·z_n. One head,
no division by √d. The backbone and the adapters stay as they are; Q, K, V of each place train, and the head.

After adapter-hub/adapters (modeling.py:378-450), where it and the paper differ: the query is what the adapters read
(the paper: the feed-forward part's output before the addition and the norm), V starts at 1 on the diagonal and 1e-6
elsewhere (the paper: random with norm 1e-6), the scores get the dropout of the model's attention. The penalty
0.01·Σ ‖I - V‖² (model_mixin.py:1455-1470) is part of the step it is computed in, there of the next one.

Fused are adapters that put one update into a place: pfeiffer, parallel (whose fixed scale multiplies what is fused) and
adapter without layer norms of its own, which could not be those of several runs. Q, K, V are shared by the adapters of
a place, so the number of what trains does not depend on how many there are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.adapter import Adapter, AdapterConfig
from peftbench.methods.base import Method, check_at_least
from peftbench.methods.bottleneck import Bottleneck, BottleneckConfig, count_bottleneck, layer_numbers
from peftbench.methods.drop import COMPLEXITY, DroppableMethod, check_drop
from peftbench.methods.fused_bottlenecks import FusedBottlenecks
from peftbench.methods.parallel import Parallel, ParallelConfig
from peftbench.methods.parts import Parts, PartsConfig, PartsMethod
from peftbench.methods.pfeiffer import Pfeiffer

FUSED: dict[str, type[Method]] = {cls.name: cls for cls in (Adapter, Parallel, Pfeiffer)}
_TENSORS = ("down_weight", "down_bias", "up_weight", "up_bias")


@dataclass(frozen=True)
class FusionConfig(PartsConfig):
    """Settings of the fusion, beside those of `PartsConfig`.

    Attributes:
        regularization: weight of ‖I - V‖², summed over the places, in the loss.
        drop: layers that go bare in a batch of training (AdapterDrop): none | robust | lab; see `methods.drop`.
        complexity: of the task, from 0 to 1, for drop=lab: the more complex, the fewer layers go bare.
    """

    regularization: float = 0.01
    drop: str = "none"
    complexity: float = COMPLEXITY

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("regularization", self.regularization, 0)
        check_drop(self.drop, self.complexity)
        if self.drop != "none" and _is_before_head(self.fused):
            raise UserError(f"method.drop={self.drop}: adapters with method.position=output are in no layer")
        settings = {"name": self.adapter_method.get("name"), **asdict(self.fused)}  # with those left at their defaults
        object.__setattr__(self, "adapter_method", settings)

    @property
    def fused(self) -> BottleneckConfig:
        """Settings of the adapters; UserError where they are of a kind that cannot be fused."""
        settings = dict(self.adapter_method)
        name = settings.pop("name", None)
        if name == Fusion.name:
            raise UserError("it is a fusion itself: name the adapters that it is made of")
        if name not in FUSED:
            raise UserError(f"it is a run of {name}: what can be fused is {', '.join(sorted(FUSED))}")
        try:
            config: BottleneckConfig = FUSED[name].config_class(**settings)
        except TypeError as error:
            raise UserError(f"method.adapter_method is not of method {name}: {error}") from error
        if isinstance(config, AdapterConfig) and config.train_layer_norm:
            raise UserError(
                "it trained the backbone's layer norms too, which several adapters cannot share: train it with"
                " method.train_layer_norm=false"
            )
        if isinstance(config, ParallelConfig) and config.learn_scale:
            raise UserError("it learned a scale, which is no part of a fusion: train it with method.learn_scale=false")
        return config


class Fusion(DroppableMethod, PartsMethod, name="fusion"):
    """The method of the adapters, with a `FusedBottlenecks` for each `Bottleneck`."""

    config_class = FusionConfig
    config: FusionConfig

    def __init__(self, config: FusionConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        self.adapters = FUSED[str(config.adapter_method["name"])](config.fused, sites)
        rate = _attention_dropout(sites)
        found = [(name, block) for name, block in self.adapters.named_modules() if isinstance(block, Bottleneck)]
        for name, block in found:
            self.adapters.set_submodule(name, FusedBottlenecks(block, len(config.runs), rate))

    def _blocks(self) -> dict[str, FusedBottlenecks]:
        return {name: block for name, block in self.adapters.named_modules() if isinstance(block, FusedBottlenecks)}

    def fill_parts(self, parts: Parts) -> None:
        """Put the adapters' tensors into their places."""
        for number, run in enumerate(self.config.runs):
            for name, block in self._blocks().items():
                for tensor in _TENSORS:
                    target, given = getattr(block, tensor)[number], parts[run].get(f"{name}.{tensor}")
                    given = given.t() if given is not None and tensor == "up_weight" else given
                    if given is None or given.shape != target.shape:
                        raise UserError(f"the adapter {run} is of another size than this fusion: it differs in {name}")
                    target.copy_(given)

    def prune(self, kept: int | None, observed: Mapping[str, Any]) -> None:
        """Fuse at each place those alone that weighed most (Rücklé et al. 2021, §5.2); the softmax is over them."""
        for block, weights in zip(self._blocks().values(), observed["weights"], strict=True):
            most = sorted(range(len(weights)), key=lambda number: -weights[number])[:kept]
            block.kept = None if kept is None else sorted(most)

    def exported(self) -> tuple[FusionConfig, dict[str, torch.Tensor]]:
        """The adapters go along: where they were read from does not matter any more."""
        return replace(self.config, adapters=None), super().exported()[1]

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Let the method of the adapters put each fused update into its place."""
        if len(self.config.runs) < 2:
            raise UserError("a fusion needs two adapters or more: method.adapters={name: RUN, other: RUN}")
        for block in self._blocks().values():
            block.backbone[:] = [sites.base]
        return self.adapters.hook(sites)

    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return those of the adapters."""
        return self.adapters.droppable_layers(sites)

    def first_layer(self, sites: Sites) -> int:
        """Return that of the adapters."""
        return self.adapters.first_layer(sites)

    def penalty(self) -> torch.Tensor:
        """Hold V near the identity."""
        return self.config.regularization * torch.stack([block.penalty() for block in self._blocks().values()]).sum()

    @contextmanager
    def observed(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """Gather the mean weight of each adapter at each place over the tokens that are no padding.

        In the last layer that is the first token alone, where nothing else is computed. Returned are:
        adapters: names. places: a layer's number and, where adapters are in several places of a layer, the place; those
        of bare layers are left out. weights: a list for each place, in the order of the adapters, 0 for pruned ones.
        """
        (sites, _), blocks = self._attached[0], self._blocks()
        sums = {name: torch.zeros(len(self.config.runs), dtype=torch.float64) for name in blocks}
        mask: list[torch.Tensor | None] = [None]

        def keep_mask(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            mask[0] = (dict(zip(("input_ids", "attention_mask"), args, strict=False)) | kwargs).get("attention_mask")

        def gather(name: str, weights: torch.Tensor) -> None:
            seen = None if mask[0] is None else mask[0][:, : weights.shape[1]]
            if seen is not None and seen.shape == weights.shape[:-1]:
                weights = weights * seen[..., None]
            sums[name][blocks[name].kept or ...] += weights.detach().flatten(0, -2).double().sum(0).cpu()

        handles = [sites.base.register_forward_pre_hook(keep_mask, with_kwargs=True)]
        for name, block in blocks.items():
            handles.append(block.softmax.register_forward_hook(lambda _, __, out, name=name: gather(name, out)))
        try:
            yield lambda: {
                "adapters": list(self.config.runs),
                "places": _place_names(self.config.fused, sites, [name for name in blocks if sums[name].any()]),
                "weights": [(total / total.sum()).tolist() for total in sums.values() if total.any()],
            }
        finally:
            for handle in handles:
                handle.remove()

    @staticmethod
    def count(config: FusionConfig, sites: Sites) -> int:
        """3d² + 2d a place: Q and K with biases, V without."""
        fused = config.fused
        width = sites.final_width if _is_before_head(fused) else sites.hidden
        adapters = FUSED[str(config.adapter_method["name"])].count(fused, sites)
        return adapters // count_bottleneck(width, fused.size(width)) * (3 * width**2 + 2 * width)


def _is_before_head(fused: BottleneckConfig) -> bool:
    return isinstance(fused, AdapterConfig) and fused.position == "output"


def _attention_dropout(sites: Sites) -> float:
    config = sites.base.config
    return float(getattr(config, "attention_probs_dropout_prob", getattr(config, "attention_dropout", 0.0)))


def _place_names(config: BottleneckConfig, sites: Sites, blocks: list[str]) -> list[str]:
    """Return what each block's place is called: its path ends with its number among those of its kind."""
    numbers = layer_numbers(config, sites)
    names = []
    for path in blocks:
        *kind, position = path.removeprefix("bottlenecks.").split(".")
        if kind == ["final"]:
            names.append("before the head")
        else:
            names.append(" ".join([f"layer {numbers[int(position)]}", *(name.replace("_", ".") for name in kind)]))
    return names

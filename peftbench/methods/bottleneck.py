"""What the bottleneck-type methods share: how size and layers are said, AdapterDrop, and an adapter's four tensors."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.site import Site
from peftbench.backbones.sites import WHOLE_SITES, Sites
from peftbench.errors import UserError
from peftbench.methods.base import check_at_least
from peftbench.methods.drop import COMPLEXITY, THIRDS, DroppableMethod, check_drop, third_of
from peftbench.methods.stacking import linear

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "gelu_new": partial(F.gelu, approximate="tanh"),
}
_PART = re.compile(r"([0-9]+)(?:-([0-9]*))?|" + "|".join(THIRDS))


@dataclass(frozen=True)
class BottleneckConfig:
    """The settings that every bottleneck-type method has.

    Attributes:
        bottleneck: inner dimension m; None is the method's default, or what reduction_factor makes it.
        reduction_factor: another way to say m, for the model's width d: d / reduction_factor, rounded down.
        layers: those with an adapter, counted from 0: all, a range such as 6-11 or 6- (to the last), one layer, a
            third (early, middle or late), or a list of these.
        drop: layers that go bare in a batch of training (AdapterDrop): none | robust | lab; see `methods.drop`.
        complexity: of the task, from 0 to 1, for drop=lab: the more complex, the fewer layers go bare.
    """

    default_bottleneck: ClassVar[int]
    bottleneck: int | None = None
    reduction_factor: float | None = None
    layers: str | list[str] = "all"
    drop: str = "none"
    complexity: float = COMPLEXITY

    def __post_init__(self) -> None:
        if self.reduction_factor is not None:
            if self.bottleneck is not None:
                raise UserError(
                    "method.bottleneck and method.reduction_factor both say the bottleneck: set one of them"
                )
            check_at_least("reduction_factor", self.reduction_factor, 1)
        elif self.bottleneck is None:
            object.__setattr__(self, "bottleneck", self.default_bottleneck)  # a record says what it was
        else:
            check_at_least("bottleneck", self.bottleneck, 1)
        _check_parts(self.layers)
        check_drop(self.drop, self.complexity)

    def size(self, hidden: int) -> int:
        """Return m on a model of width `hidden`; UserError where the factor leaves nothing of it."""
        if self.reduction_factor is None:
            assert self.bottleneck is not None
            return self.bottleneck
        if self.reduction_factor > hidden:
            raise UserError(
                f"method.reduction_factor={self.reduction_factor:g} leaves no bottleneck of the model's width {hidden}"
            )
        return int(hidden // self.reduction_factor)


def layer_numbers(config: BottleneckConfig, sites: Sites) -> list[int]:
    """Return the layers that carry an adapter, in order; UserError for one that the model has not."""
    count = len(sites.layers)
    if config.layers == "all":
        return list(range(count))
    ranges = [_numbers(part, count) for part in _parts(config.layers)]
    # by the ends alone first: a range may be far longer than the memory
    if any(part and part[-1] >= count for part in ranges) or not any(ranges):
        raise UserError(f"method.layers={_shown(config.layers)} is outside of the model: its layers are 0-{count - 1}")
    return sorted({number for part in ranges for number in part})


def canonical_layers(layers: str | list[str], count: int) -> str | list[str]:
    """Return one spelling for all ways to name the same of `count` layers: 3- for 3-5 of six, all for 0-.

    Thirds by their names stay as they are, and so does what names layers that are not there.
    """
    parts = _parts(layers)
    if layers == "all" or not set(THIRDS).isdisjoint(parts):
        return layers
    ranges = [_numbers(part, count) for part in parts]
    if any(part[-1] >= count for part in ranges):
        return layers
    numbers = sorted({number for part in ranges for number in part})
    if len(numbers) == count:
        return "all"
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    found = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    if ends[-1] == count - 1 and (len(found) == 1 or starts[-1] < ends[-1]):
        found[-1] = f"{starts[-1]}-"
    return found if len(found) > 1 else found[0]


def adapter_sites(config: BottleneckConfig, sites: Sites, name: str) -> list[Site]:
    """Return the sites of a name in the layers that carry an adapter; the one of the whole model as it is."""
    found = sites.at(name)
    return found if name in WHOLE_SITES else [found[number] for number in layer_numbers(config, sites)]


def _parts(layers: str | list[str]) -> list[str]:
    return [layers] if isinstance(layers, str) else layers


def _numbers(part: str, count: int) -> Sequence[int]:
    """Return the layers that one part of the setting names on a model of so many, or of more than it has."""
    if part in THIRDS:
        return [number for number in range(count) if THIRDS[third_of(number, count)] == part]
    first, dash, last = part.partition("-")
    return range(int(first), int(last) + 1 if last else count if dash and int(first) < count else int(first) + 1)


def _check_parts(layers: str | list[str]) -> None:
    """Raise UserError for what is no way to say layers, whatever the model."""
    parts = _parts(layers)
    found = [_PART.fullmatch(part) for part in parts]
    falling = any(match and match[2] and int(match[1]) > int(match[2]) for match in found)
    if layers != "all" and (not parts or not all(found) or falling):
        raise UserError(
            f"method.layers={_shown(layers)} must be all, a range of layers such as 6-11 or 6-, a third (early, middle,"
            " late), or a list such as [0-2,11]"
        )


def _shown(layers: str | list[str]) -> str:
    return layers if isinstance(layers, str) else f"[{','.join(layers)}]"


class BottleneckMethod(DroppableMethod):
    """A method whose `layers` carry adapters, of which batches may leave some out."""

    config: BottleneckConfig

    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return the layers with adapters."""
        return layer_numbers(self.config, sites)


def bottleneck_update(
    x: torch.Tensor,
    down_weight: torch.Tensor,
    down_bias: torch.Tensor,
    up_weight: torch.Tensor,
    up_bias: torch.Tensor,
    activation: Activation,
) -> torch.Tensor:
    """Return W_up·act(W_down·x + b_down) + b_up; all may be stacked (see `peftbench.methods.stacking`).

    Args:
        x: (..., d).
        down_weight: (m, d). down_bias: (m,). up_weight: (d, m). up_bias: (d,).
        activation: elementwise function.
    """
    return linear(activation(linear(x, down_weight, down_bias)), up_weight, up_bias)


class Bottleneck(nn.Module):
    """The four tensors of one bottleneck: biases of 0, weights for the method to fill."""

    def __init__(self, hidden: int, bottleneck: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.down_weight = nn.Parameter(torch.empty(bottleneck, hidden))
        self.down_bias = nn.Parameter(torch.zeros(bottleneck))
        self.up_weight = nn.Parameter(torch.empty(hidden, bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the update of x, (..., d), the same shape."""
        return bottleneck_update(x, self.down_weight, self.down_bias, self.up_weight, self.up_bias, self.activation)


def count_bottleneck(hidden: int, bottleneck: int) -> int:
    """Return the parameters of one `Bottleneck`: 2md + m + d (Houlsby et al. 2019, §2.1)."""
    return 2 * bottleneck * hidden + bottleneck + hidden

"""AdapterDrop (Rücklé et al. 2021): in which layers a method leaves the backbone bare in a batch of training.

robust is the paper's (§3): n is drawn uniformly from 0 … L-1 for every batch, L the number of layers with adapters, and
the lowest n go bare: one model for every n, as `peftbench evaluate RUN --drop each` scores it. L-1, so that one layer
is always left, is the paper's 11 of 12; the notebook of adapter-hub/adapters draws up to 10. The paper's other kind,
specialised, trains for one n alone: `method.layers=n-`.

lab is the lab's rule and not AdapterDrop: each layer goes bare by itself, with a probability that falls from third to
third of the backbone's layers and with the complexity of the task. It leaves gaps in the middle and bare layers above,
where the paper drops from below alone; so nothing is shared between tasks and the backward pass goes down to the lowest
layer that acts. The lab gives no rates: `LAB_RATES` are ours, in the order that the paper's findings suggest (lower
adapters matter less). When scored, every layer acts and nothing is rescaled.

AdamW takes no step with a tensor that a batch gives no gradient, and its running averages wait.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method, check_at_least, check_choice

THIRDS = ("early", "middle", "late")
# of a layer in each third, for a task of complexity 0
LAB_RATES = (0.5, 0.3, 0.1)
# of a task of which nothing is said
COMPLEXITY = 0.5


def third_of(layer: int, count: int) -> int:
    """Return in which third, 0 to 2, one of `count` layers lies."""
    return 3 * layer // count


def robust(layers: Sequence[int], count: int, complexity: float, random: np.random.Generator) -> Sequence[int]:
    """Return the lowest n of the layers, n drawn from 0 … len(layers) - 1."""
    return layers[: int(random.integers(len(layers)))]


def lab(layers: Sequence[int], count: int, complexity: float, random: np.random.Generator) -> Sequence[int]:
    """Return layers drawn one by one: each with its third's rate in `LAB_RATES`, times 1 - complexity."""
    drawn = random.random(len(layers))
    return [
        layer
        for layer, share in zip(layers, drawn, strict=True)
        if share < LAB_RATES[third_of(layer, count)] * (1 - complexity)
    ]


# called with the layers that carry adapters, from the lowest on, the number of the backbone's, the task's complexity
# and random numbers, return those that go bare
DRAWS: dict[str, Callable[[Sequence[int], int, float, np.random.Generator], Sequence[int]]] = {
    "robust": robust,
    "lab": lab,
}
DROPS = ("none", *DRAWS)


class DroppableMethod(Method):
    """A method that can leave layers bare; its config has `drop` and `complexity`, see `check_drop`."""

    config: Any

    @abstractmethod
    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return the layers that the method acts in, from the lowest on."""

    def first_layer(self, sites: Sites) -> int:
        """Return the lowest of them."""
        return self.droppable_layers(sites)[0]

    @property
    def varies(self) -> bool:
        """Whether batches leave layers out."""
        return bool(self.config.drop != "none")

    def redraw(self, random: np.random.Generator | None, sites: Sites) -> None:
        """Draw the layers that go bare in the next batch; none where it is scored."""
        if self.varies:
            layers, count = self.droppable_layers(sites), len(sites.layers)
            self.drop(DRAWS[self.config.drop](layers, count, self.config.complexity, random) if random else ())


def check_drop(drop: str, complexity: float) -> None:
    """Raise UserError for settings that a config cannot have: a drop of `DROPS`, a complexity from 0 to 1."""
    check_choice("drop", drop, DROPS)
    check_at_least("complexity", complexity, 0)
    if complexity > 1:
        raise UserError(f"method.complexity={complexity:g} must be 1 or less")
    if complexity != COMPLEXITY and drop != "lab":
        raise UserError(f"method.complexity={complexity:g} says something with method.drop=lab alone")

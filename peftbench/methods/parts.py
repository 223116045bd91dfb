"""What a method that is made of other runs says of them: which they are, what they trained, which it computes with."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from peftbench.errors import UserError, nearest
from peftbench.methods.base import Method

# the tensors of each run's method, as its adapter holds them, by the name that the run has here
Parts = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class PartsConfig:
    """The settings of a method that is made of runs.

    Whoever trains it replaces `adapters` and `leave_out` by what they come to, and fills in the other two.

    Attributes:
        adapters: finished runs by the names they get here, {mrpc: RUN, rte: RUN}, or one pattern of folders such as
            outputs/x/pfeiffer-*, which names them after their tasks.
        leave_out: names of those that are not taken after all.
        runs: the ids of the runs by their names; filled in from adapters.
        adapter_method: name and settings of the method that they all trained; filled in from adapters.
    """

    adapters: dict[str, str] | str | None = None
    leave_out: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    adapter_method: dict[str, Any] = field(default_factory=lambda: {"name": "pfeiffer"})

    def __post_init__(self) -> None:
        if isinstance(self.adapters, dict):  # a pattern's names are known when its folders are
            check_left_out(self.leave_out, self.adapters)


def check_left_out(names: Iterable[str], adapters: Iterable[str]) -> None:
    """Raise UserError for a name in `method.leave_out` that none of the adapters has."""
    adapters = list(adapters)
    for name in names:
        if name not in adapters:
            raise UserError(f"method.leave_out: there is no adapter {name!r}. {nearest(name, adapters)}")


class PartsMethod(Method):
    """A method that is made of runs."""

    config: PartsConfig

    @abstractmethod
    def fill_parts(self, parts: Parts) -> None:
        """Take in the tensors of the runs."""

    @abstractmethod
    def prune(self, kept: int | None, observed: Mapping[str, Any]) -> None:
        """Compute at each place with the `kept` runs alone that weighed most there; None: with all again.

        Args:
            observed: weights of the runs at each place, as `Method.observed` tells them with no layer bare.
        """

"""How far training has come: its rows of history, and all that a checkpoint has to hold to go on from there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from peftbench.training.checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state

EpochRow = dict[str, Any]


@dataclass
class Fitted:
    """What training came to.

    Attributes:
        best: the epoch row with the highest primary score. resumed: how many rows an earlier process has trained.
    """

    steps: int = 0
    examples: int = 0
    rows: list[EpochRow] = field(default_factory=list)
    best: EpochRow = field(default_factory=dict)
    first_step: float | None = None
    resumed: int = 0

    @property
    def seconds(self) -> list[float]:
        """Training time of each epoch, evaluation left out."""
        return [row["seconds"] for row in self.rows]


@dataclass
class Progress:
    """How far training has come, as a checkpoint holds it.

    Attributes:
        tensors: what trains, and what the model gathers while it trains, by name.
    """

    tensors: Mapping[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    fitted: Fitted
    device: torch.device

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        state = {
            "trained": {name: tensor.detach().cpu() for name, tensor in self.tensors.items()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random_state(self.device),
            "steps": self.fitted.steps,
            "examples": self.fitted.examples,
            "rows": self.fitted.rows,
            "best": self.fitted.best,
        }
        save_checkpoint(path, state)

    def load(self, path: Path | None) -> dict[str, Any] | None:
        """Return what a checkpoint holds; None where there is none."""
        if path is None or not path.exists():
            return None
        return load_checkpoint(path, {name: tensor.shape for name, tensor in self.tensors.items()})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(state["trained"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        set_random_state(state["random"], self.device)
        self.fitted.steps, self.fitted.examples = state["steps"], state["examples"]
        self.fitted.rows, self.fitted.best = state["rows"], state["best"]
        self.fitted.resumed = len(self.fitted.rows)

"""What is made of a method's tensors, such as a product of factors: kept for as long as they stay as they are."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


class WhileUnchanged(Generic[T]):
    """Keeps the last thing made of frozen tensors; of tensors that train it is made anew each time."""

    def __init__(self) -> None:
        self._kept: tuple[list[Any], T] | None = None

    @property
    def kept(self) -> T | None:
        """What is kept now."""
        return None if self._kept is None else self._kept[1]

    def get(self, tensors: Sequence[torch.Tensor], make: Callable[[], T], *settings: Any) -> T:
        """Return what `make` gives; of frozen tensors it is kept.

        Args:
            tensors: what it is made of, on one device.
            make: called without autocast and gradients where the tensors are frozen.
            settings: whatever else it depends on.
        """
        # a fused optimizer changes what trains without a trace, and tensors of inference mode leave none
        if any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
            self._kept = None
            return make()
        state = [*settings, *((tensor.data_ptr(), tensor._version) for tensor in tensors)]
        if self._kept is None or self._kept[0] != state:
            # a later pass may need gradients of what enters
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(tensors[0].device.type, enabled=False):
                self._kept = state, make()
        return self._kept[1]

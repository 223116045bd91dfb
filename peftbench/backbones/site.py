"""A site: one place of one layer, a module's output or a part of it, or what enters the module."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from peftbench.backbones.rows import Rows
from peftbench.errors import UserError


@dataclass(frozen=True, eq=False)
class Site:
    """Where a method attaches.

    Attributes:
        module: whose output the site is.
        part: which features of the output, where the module is several maps in one; None for all.
        is_input: the site is what enters the module (its first argument), not what it returns.
        name: among the sites of a layer.
        layer: the number of the layer it lies in; None where it lies in none.
        rows: of the batch, that what is attached acts on; None for all.
    """

    module: nn.Module
    part: slice | None = None
    is_input: bool = False
    name: str = ""
    layer: int | None = None
    rows: Rows | None = None

    # a linear map: its weight is (d_out, d_in) here, however the module keeps it --------------------------

    @property
    def transposed(self) -> bool:
        """Whether the module keeps its weight as (d_in, d_out)."""
        return isinstance(self.module, Conv1D)

    @property
    def weight(self) -> torch.Tensor:
        """The linear map's weight, (d_out, d_in), a view."""
        return self.weight_of(self.module.weight)  # type: ignore[arg-type]

    @property
    def bias(self) -> torch.Tensor | None:
        """The linear map's bias, (d_out,), a view; None where it has none."""
        return self.bias_of(self.module.bias)  # type: ignore[arg-type]

    def weight_of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the site's view, (d_out, d_in), of a weight as the module keeps it."""
        weight = weight.t() if self.transposed else weight
        return weight if self.part is None else weight[self.part]

    def bias_of(self, bias: torch.Tensor | None) -> torch.Tensor | None:
        """Return the site's view, (d_out,), of the module's bias."""
        return bias if bias is None or self.part is None else bias[self.part]

    @property
    def in_features(self) -> int:
        """The linear map's input dimension."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """The linear map's output dimension."""
        return self.weight.shape[0]

    def same_map(self, other: "Site") -> bool:
        """Whether both are input or output of the same map."""
        return self.module is other.module and self.part == other.part

    # acting on it ---------------------------------------------------------------------------------------

    def replace(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "SiteHandle":
        """Replace the tensor at the site by `function(tensor)` until the handle is removed."""
        if self.is_input:

            def enter(module: nn.Module, args: tuple) -> tuple:
                x = args[0]
                return (function(x) if self.rows is None else self.rows.replace(x, function), *args[1:])

            return SiteHandle(self, self.module.register_forward_pre_hook(enter))
        return SiteHandle(self, self.module.register_forward_hook(lambda _, args, out: self._with(args, out, function)))

    def replace_output(
        self, function: Callable[[Any, torch.Tensor], torch.Tensor], recomputed_by: str | None = None
    ) -> "SiteHandle":
        """Replace the site's output by `function(the module's input, output)` until the handle is removed.

        Args:
            function: of tensors (batch, sequence, d_in) and (batch, sequence, d_out), returns the latter shape.
            recomputed_by: the setting, as an error names it, with which the function computes the output from the map's
                weight and so loses what others have made of the output before; None where it keeps that.
        """

        def leave(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
            return self._with(args, output, function, args[0])

        return SiteHandle(self, self.module.register_forward_hook(leave), recomputed_by=recomputed_by)

    def take_over(self, forward: Callable[..., Any]) -> "SiteHandle":
        """Let `forward` compute in the module's place, inside all hooks on it, until the handle is removed.

        Raises UserError where another does so already.
        """
        if "forward" in vars(self.module):
            raise UserError(f"something else computes in the place of {self.name} already: detach it first")
        vars(self.module)["forward"] = forward
        return SiteHandle(self, _TakenOver(self.module), inside=True)

    def _with(
        self, args: tuple, output: torch.Tensor, function: Callable[..., torch.Tensor], *others: torch.Tensor
    ) -> torch.Tensor:
        """Return the module's output with `function(others …, it)` in the place of the site's part of it."""
        part = output if self.part is None else output[..., self.part]
        if self.rows is None:
            new = function(*others, part)
        else:  # what a module hands on as it came is somebody else's too
            inplace = output.data_ptr() != args[0].data_ptr()
            new = self.rows.replace(part, function, *others, inplace=inplace)
            if new is part:
                return output
        if self.part is None:
            return new
        return torch.cat([output[..., : self.part.start], new, output[..., self.part.stop :]], dim=-1)

    def watch(self, function: Callable[[torch.Tensor], None]) -> "WatchHandle":
        """Call `function(tensor)` with what passes the site, until the handle is removed."""
        if self.is_input:

            def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
                function(args[0] if args else kwargs["hidden_states"])

            return WatchHandle(self, self.module.register_forward_pre_hook(enter, with_kwargs=True))

        def leave(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            function(output if self.part is None else output[..., self.part])

        return WatchHandle(self, self.module.register_forward_hook(leave))


class _Removable(Protocol):
    def remove(self) -> None: ...


@dataclass(frozen=True, eq=False)
class _TakenOver:
    module: nn.Module

    def remove(self) -> None:
        vars(self.module).pop("forward", None)


@dataclass(frozen=True, eq=False)
class SiteHandle:
    """Takes back what acts on a site.

    `inside`: within all hooks on it, whichever came first. `recomputed_by`: see `Site.replace_output`.
    """

    site: Site
    handle: _Removable
    inside: bool = False
    recomputed_by: str | None = None

    def remove(self) -> None:
        """Undo the attachment."""
        self.handle.remove()


@dataclass(frozen=True, eq=False)
class WatchHandle:
    """Takes back what looks at a site and leaves it as it is."""

    site: Site
    handle: RemovableHandle

    def remove(self) -> None:
        """Look no longer."""
        self.handle.remove()


@dataclass(frozen=True, eq=False)
class Span:
    """A sub-layer: what enters it (behind a norm that stands before it) and its output before the residual addition."""

    input: Site
    output: Site

    def replace(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[WatchHandle | SiteHandle]:
        """Replace the sub-layer's output by `function(input, output)`, both (batch, sequence, d)."""
        entered: list[torch.Tensor] = []

        def keep(x: torch.Tensor) -> None:
            entered[:] = [x]

        def leave(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
            if not entered:
                raise RuntimeError(f"{self.output.name} runs twice, what enters its sub-layer is read once")
            # where the last layer computes the first token alone, the input's others have no output
            return self.output._with(args, output, function, entered.pop()[:, : output.shape[1]])

        return [self.input.watch(keep), SiteHandle(self.output, self.output.module.register_forward_hook(leave))]

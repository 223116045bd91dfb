"""What every method is: tensors that train, and how they act on a backbone's sites.

A method's file holds its config dataclass, its mathematics as plain functions of (tensors, site input),
and a `Method` that stores the tensors and attaches them with hooks. The backbone keeps its own modules and
its `state_dict` names; `detach` gives it back bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError


class Handle(Protocol):
    """What takes one attachment back."""

    def remove(self) -> None:
        """Undo the attachment."""


METHODS: dict[str, type["Method"]] = {}


class Method(nn.Module, ABC):
    """Base of all methods: its own parameters are exactly what the method trains.

    `class Adapter(Method, name="adapter")` registers a method under the name that configs use.

    Parameters of the backbone that a method trains (biases, layer norms, all of them) are clones, put in the
    backbone's place while attached; the backbone's own `Parameter` objects wait aside untouched.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    mergeable: ClassVar[bool] = False

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            METHODS[name] = cls

    def __init__(self, config: Any, sites: Sites) -> None:
        super().__init__()
        self.config = config
        self.replaced = nn.ParameterDict()
        self._originals: dict[str, nn.Parameter] = {}
        self._sites: list[Sites] = []  # a list keeps nn.Module from taking the backbone in
        self._handles: list[Handle] = []

    # what a method defines ------------------------------------------------------------------------------

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Register the method's hooks on the sites and return their handles (none by default)."""
        return ()

    @staticmethod
    @abstractmethod
    def count(config: Any, sites: Sites) -> int:
        """Return the number of trained parameters in closed form, the head left out."""

    @property
    def extra_tokens(self) -> int:
        """How many positions the method adds to each sequence."""
        return 0

    @property
    def keeps_first_row(self) -> bool:
        """Whether row 0 of the last layer's input is still the model's own first token."""
        return True

    def exported(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return (config, tensors) to store after training, in the form that inference needs."""
        return self.config, {name: tensor.detach() for name, tensor in self.state_dict().items()}

    # what all methods share -----------------------------------------------------------------------------

    def train_backbone(self, sites: Sites, names: Iterable[str]) -> None:
        """Take clones of these backbone parameters among the method's own."""
        own = dict(sites.backbone_parameters())
        for name in names:
            clone = nn.Parameter(own[name].detach().clone())
            self.replaced[_escape(name)] = clone

    @property
    def attached(self) -> bool:
        """Whether the method acts on a backbone now."""
        return bool(self._sites)

    @property
    def merged(self) -> bool:
        """Whether the method is folded into the backbone's weights now."""
        return False

    def attach(self, sites: Sites) -> None:
        """Act on the backbone from now on. Raises UserError where the method is attached already."""
        if self.attached:
            raise UserError("this method is attached to a backbone already: detach it first")
        for key, parameter in self.replaced.items():
            name = _unescape(key)
            self._originals[name] = _swap(sites.base, name, parameter)
        self._sites.append(sites)
        self._handles.extend(self.hook(sites))

    def detach(self) -> None:
        """Give the backbone back as it was before `attach`, bit for bit."""
        self._unhook()
        for sites in self._sites:
            for name, original in self._originals.items():
                _swap(sites.base, name, original)
        self._originals.clear()
        self._sites.clear()

    def _unhook(self) -> None:
        for handle in reversed(self._handles):
            handle.remove()
        self._handles.clear()

    @contextmanager
    def on(self, sites: Sites) -> Iterator[None]:
        """Attach for the length of a `with` block."""
        self.attach(sites)
        try:
            yield
        finally:
            self.detach()


def _swap(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
    """Put `parameter` in the place `name` of `module` and return what stood there."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    original = owner._parameters[leaf]
    assert original is not None
    owner._parameters[leaf] = parameter
    return original


def _escape(name: str) -> str:
    return name.replace(".", "/")


def _unescape(key: str) -> str:
    return key.replace("/", ".")


def add_to_output(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor]) -> RemovableHandle:
    """Replace a module's output by `function(output)`."""
    return module.register_forward_hook(lambda _module, _args, output: function(output))


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise UserError where `value` is below `least`."""
    if value < least:
        raise UserError(f"method.{name}={value:g} must be {least:g} or more")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise UserError, naming the choices, where `value` is not one of them."""
    if value not in (names := list(choices)):
        raise UserError(f"method.{name}={value} is unknown: choose from {', '.join(names)}")

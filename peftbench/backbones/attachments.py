"""What is attached to a backbone: an ordered list of hooks and of parameters put in the place of its own.

Attachments come and go in any order. A module's parameters are always what the attachments still there make
of the originals, in the order of the list; with the last one gone they are the originals themselves.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import nn


class Handle(Protocol):
    """What takes one hook back."""

    def remove(self) -> None:
        """Undo it."""


Parameters = Mapping[str, nn.Parameter | None]
# from a module's parameters, by their names in it, to those that take their places
Change = Callable[[Parameters], Parameters]


@dataclass(eq=False)
class Attachment:
    """One entry of the list.

    Attributes:
        hook: registers hooks and yields their handles; called again when an earlier entry's hooks change.
        changes: what is made of the parameters of some modules.
        handles: of the hooks there are now.
    """

    hook: Callable[[], Iterable[Handle]] | None
    changes: Mapping[nn.Module, Change] = field(default_factory=dict)
    handles: list[Handle] = field(default_factory=list)


class Attachments:
    """The ordered list of one backbone."""

    def __init__(self) -> None:
        self._list: list[Attachment] = []
        self._originals: dict[nn.Module, dict[str, nn.Parameter | None]] = {}

    def add(self, attachment: Attachment) -> None:
        """Attach behind all others; where that fails half way, nothing stays attached."""
        self._list.append(attachment)
        try:
            self._settle(attachment.changes)
            _hook(attachment)
        except BaseException:
            self.remove(attachment)
            raise

    def remove(self, attachment: Attachment) -> None:
        """Detach, whatever was attached before or behind it."""
        _unhook(attachment)
        self._list.remove(attachment)
        self._settle(attachment.changes)

    def change(
        self,
        attachment: Attachment,
        hook: Callable[[], Iterable[Handle]] | None,
        changes: Mapping[nn.Module, Change],
    ) -> None:
        """Let an entry act otherwise, at its place in the list; where that fails, it acts as before."""
        before = attachment.hook, attachment.changes
        try:
            self._act(attachment, hook, changes)
        except BaseException:
            self._act(attachment, *before)
            raise

    def _act(
        self,
        attachment: Attachment,
        hook: Callable[[], Iterable[Handle]] | None,
        changes: Mapping[nn.Module, Change],
    ) -> None:
        modules = [*attachment.changes, *changes]
        attachment.hook, attachment.changes = hook, changes
        self._settle(modules)
        following = self._list[self._list.index(attachment) :]
        for later in following:
            _unhook(later)
        for later in following:  # hooks run in the order of their registration
            _hook(later)

    def _settle(self, modules: Iterable[nn.Module]) -> None:
        """Make the modules' parameters what the attachments make of the originals."""
        for module in modules:
            changes = [entry.changes[module] for entry in self._list if module in entry.changes]
            parameters = dict(self._originals.setdefault(module, dict(module._parameters)))
            for change in changes:
                parameters |= change(parameters)
            module._parameters.update(parameters)
            if not changes:
                del self._originals[module]


def _hook(attachment: Attachment) -> None:
    if attachment.hook is not None:
        for handle in attachment.hook():  # one by one: those before an error can be taken back
            attachment.handles.append(handle)


def _unhook(attachment: Attachment) -> None:
    while attachment.handles:
        attachment.handles.pop().remove()


_ATTACHMENTS: WeakKeyDictionary[nn.Module, Attachments] = WeakKeyDictionary()


def attachments_of(encoder: nn.Module) -> Attachments:
    """Return the list of what is attached to an encoder."""
    return _ATTACHMENTS.setdefault(encoder, Attachments())

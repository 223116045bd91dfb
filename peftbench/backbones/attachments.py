"""What is attached to a backbone: an ordered list of hooks and of parameters put in the place of its own.

Attachments come and go in any order. A module's parameters are always what the attachments still there make
of the originals, in the order of the list; with the last one gone they are the originals themselves.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import nn

from peftbench.backbones.site import Site, SiteHandle
from peftbench.errors import UserError


class Handle(Protocol):
    """What takes one hook back."""

    def remove(self) -> None:
        """Undo it."""


Parameters = Mapping[str, nn.Parameter | None]
# from a module's parameters, by their names in it, to those that take their places
Change = Callable[[Parameters], Parameters]


@dataclass(frozen=True)
class Folding:
    """What is written into the weights of linear maps in place of hooks: the maps, and the changes that do it."""

    sites: Sequence[Site] = ()
    changes: Mapping[nn.Module, Change] = field(default_factory=dict)


@dataclass(eq=False)
class Attachment:
    """One member of the list.

    Attributes:
        hook: registers hooks and yields their handles; called again when an earlier one's hooks change.
        changes: what is made of the parameters of some modules.
        folding: what is made of them behind all changes.
        handles: of the hooks there are now.
        pyramid: returns the maps of features that it made in the last pass, the finest first, or None.
    """

    hook: Callable[[], Iterable[Handle]] | None
    changes: Mapping[nn.Module, Change] = field(default_factory=dict)
    folding: Folding = Folding()
    handles: list[Handle] = field(default_factory=list)
    pyramid: Callable[[], Sequence[torch.Tensor] | None] = lambda: None


class Attachments:
    """The ordered list of one backbone."""

    def __init__(self) -> None:
        self._list: list[Attachment] = []
        self._originals: dict[nn.Module, dict[str, nn.Parameter | None]] = {}

    def pyramid(self) -> Sequence[torch.Tensor] | None:
        """Return the maps of features that an attachment made in the last pass, None where none makes any."""
        made = (attachment.pyramid() for attachment in self._list)
        return next((maps for maps in made if maps is not None), None)

    @property
    def handles(self) -> list[Handle]:
        """The hooks that all of it acts through now, in their order."""
        return [handle for attachment in self._list for handle in attachment.handles]

    def add(self, attachment: Attachment) -> None:
        """Attach behind all others; where that fails half way, nothing stays attached.

        Raises UserError where it acts on a map in another order than the hooks of all would.
        """
        self._list.append(attachment)
        try:
            self._apply_changes(attachment.changes)
            _hook(attachment)
            self._check_order()
        except BaseException:
            self.remove(attachment)
            raise

    def remove(self, attachment: Attachment) -> None:
        """Detach, whatever was attached before or behind it."""
        _unhook(attachment)
        self._list.remove(attachment)
        self._apply_changes([*attachment.changes, *attachment.folding.changes])

    def change(
        self, attachment: Attachment, hook: Callable[[], Iterable[Handle]] | None, folding: Folding = Folding()
    ) -> None:
        """Let an attachment act by other means, at its place in the list; where that fails, it acts as before.

        Raises UserError where maps would then be changed in another order than the hooks of all change them.
        """
        before = attachment.hook, attachment.folding
        try:
            self._act(attachment, hook, folding)
            self._check_order()
        except BaseException:
            self._act(attachment, *before)
            raise

    def renew(self, attachment: Attachment) -> None:
        """Register an attachment's hooks and make its changes again: they come out otherwise than before."""
        self._apply_changes(attachment.changes)
        self._hook_again(attachment)

    def _act(self, attachment: Attachment, hook: Callable[[], Iterable[Handle]] | None, folding: Folding) -> None:
        modules = [*attachment.folding.changes, *folding.changes]
        attachment.hook, attachment.folding = hook, folding
        self._apply_changes(modules)
        self._hook_again(attachment)

    def _hook_again(self, attachment: Attachment) -> None:
        following = self._list[self._list.index(attachment) :]
        for later in following:
            _unhook(later)
        for later in following:  # hooks run in the order of their registration
            _hook(later)

    def _apply_changes(self, modules: Iterable[nn.Module]) -> None:
        """Make the modules' parameters what the attachments make of the originals."""
        for module in modules:
            everything = [
                *(attachment.changes for attachment in self._list),
                *(attachment.folding.changes for attachment in self._list),
            ]
            changes = [changes[module] for changes in everything if module in changes]
            parameters = dict(self._originals.setdefault(module, dict(module._parameters)))
            for change in changes:
                parameters |= change(parameters)
            module._parameters.update(parameters)
            if not changes:
                del self._originals[module]

    def _check_order(self) -> None:
        """Refuse maps on which a folded attachment acts before what its hooks would act behind, or the other way.

        And maps whose output an attachment recomputes, so that what earlier ones have made of it is lost.
        """
        for index, attachment in enumerate(self._list):
            for handle in _recomputing(attachment):
                site = handle.site
                if any(_makes_output(other, site) for other in self._list[:index]):
                    raise UserError(
                        f"{handle.recomputed_by} computes {site.name} anew and would lose what another method adds to"
                        " it: attach it before the other, or merge that one first"
                    )
            for site in attachment.folding.sites:
                if any(_before(other, site) for other in self._list[:index]) or (
                    site.is_input
                    and any(_hooked(other, site) for other in self._list[index + 1 :])
                    or any(_inside(other, site) for other in self._list[index + 1 :])
                ):
                    raise UserError(
                        f"merged, the methods on {site.name} would act in another order: merge them in the order in"
                        " which they were attached, and attach one that scales the map's input last"
                    )


def _before(earlier: Attachment, site: Site) -> bool:
    """Tell whether an earlier one would act behind what is folded into a site: all hooks do but those on the input.

    What is folded into a map's input stands before an update that is folded behind it.
    """
    if site.is_input:
        return bool(_hooked(earlier, site))
    return not all(at.is_input for at in _hooked(earlier, site)) or any(
        at.is_input and at.same_map(site) for at in earlier.folding.sites
    )


def _hooked(attachment: Attachment, site: Site) -> list[Site]:
    """Return the sites of an attachment's hooks on a site's map."""
    sites = [handle.site for handle in attachment.handles if isinstance(handle, SiteHandle)]
    return [at for at in sites if at.same_map(site)]


def _recomputing(attachment: Attachment) -> list[SiteHandle]:
    """Return the handles of an attachment's hooks that compute a map's output from its weight."""
    return [handle for handle in attachment.handles if isinstance(handle, SiteHandle) and handle.recomputed_by]


def _makes_output(attachment: Attachment, site: Site) -> bool:
    """Tell whether an attachment's hooks act on a map's output, in rows of the batch that a site is of too."""
    return any(not at.is_input and (at.rows is None or site.rows is None) for at in _hooked(attachment, site))


def _inside(attachment: Attachment, site: Site) -> bool:
    """Tell whether an attachment computes in the place of a site's map, and so before all that hooks do to it."""
    return any(isinstance(h, SiteHandle) and h.inside and h.site.same_map(site) for h in attachment.handles)


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

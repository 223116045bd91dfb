"""What every method is: tensors that train, and how they act on a backbone's sites.

A method's file holds its config dataclass, its mathematics as plain functions of (tensors, site input),
and a `Method` that stores the tensors and attaches them with hooks. The backbone keeps its own modules and
its `state_dict` names; `detach` gives it back bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from peftbench.backbones.attachments import Attachment, Handle
from peftbench.backbones.heads import HeadedBackbone, add_head
from peftbench.backbones.load import AnswersThrough, Backbone
from peftbench.backbones.row_parameters import row_parameters
from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.folding import Fold, folding
from peftbench.methods.keys import escape, unescape
from peftbench.methods.replaced import replacements

METHODS: dict[str, type["Method"]] = {}


class Method(nn.Module, ABC):
    """Base of all methods: its own parameters are exactly what the method trains.

    `class Adapter(Method, name="adapter")` registers a method under the name that configs use.

    Parameters of the backbone that a method trains (biases, layer norms, all of them) are clones, put in the
    backbone's place while attached; the backbone's own `Parameter` objects wait aside untouched.

    A method that defines `fold` can be merged into the backbone's weights.
    """

    name: ClassVar[str]
    config_class: ClassVar[type]
    mergeable: ClassVar[bool] = False
    # of the examples that it makes sense for
    modalities: ClassVar[tuple[str, ...]] = ("texts", "images")
    # a new classifier, or what the backbone was pretrained under, which is loaded with it then
    answers_through: ClassVar[AnswersThrough] = "classifier"
    # whether dense heads read the maps of `pyramid`
    makes_pyramid: ClassVar[bool] = False

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.mergeable = cls.fold is not Method.fold
        if name is not None:
            cls.name = name
            METHODS[name] = cls

    def __init__(self, config: Any, sites: Sites) -> None:
        super().__init__()
        given = "texts" if sites.image is None else "images"
        if given not in self.modalities:
            raise UserError(
                f"method={self.name} is for {self.modalities[0]}, and {type(sites.base).__name__} reads {given}:"
                " choose another method or model"
            )
        self.config = config
        self.replaced = nn.ParameterDict()
        self._attached: list[tuple[Sites, Attachment]] = []  # a list keeps nn.Module from taking the backbone in
        self._merged = False
        self.bare: frozenset[int] = frozenset()

    # what a method defines ------------------------------------------------------------------------------

    @classmethod
    def put_head(cls, config: Any, backbone: Backbone, labels: Sequence[str], texts: int) -> HeadedBackbone:
        """Put the head on a backbone through which this method answers: a new classifier, which trains.

        Args:
            config: of the method. backbone: loaded with what `answers_through` says.
            labels: names of the classes; none where the labels are scores. texts: in an example, 0 for images.
        """
        return add_head(backbone, len(labels) or 1)

    def pyramid(self) -> Sequence[torch.Tensor] | None:
        """Return the four maps, (batch, hidden, rows, columns), that it made in the last pass, the finest first."""

    def probe(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch of random tokens with what the method must find in it to act."""
        return batch

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Register the method's hooks on the sites and return their handles (none by default)."""
        return ()

    def fold(self, sites: Sites) -> Iterable[tuple[Site, Fold]]:
        """Yield the linear sites the method acts on, each with what the method makes of its weight and bias.

        A site on whose input the method acts has `is_input` set, as that of its hook has. A merged method acts through
        these alone, its hooks are off.
        """
        return ()

    @staticmethod
    @abstractmethod
    def count(config: Any, sites: Sites) -> int:
        """Return the number of trained parameters in closed form, the head left out."""

    def penalty(self) -> torch.Tensor | None:
        """Return what each training step adds to the task's loss, a tensor without dimensions; None for nothing."""

    @contextmanager
    def observed(self) -> Iterator[Callable[[], dict[str, Any] | None]]:
        """Watch what the attached method does inside the block; the function yielded tells it, None for nothing."""
        yield lambda: None

    def remarks(self, sites: Sites) -> list[str]:
        """Return what the user should know of the method as it is set, a line each."""
        return []

    @property
    def extra_positions(self) -> int:
        """Positions that count against the model's maximum length, prefix keys included."""
        return 0

    @property
    def inserted_tokens(self) -> int:
        """Token vectors actually inserted into the hidden states, (batch, sequence + n, d); 0 for a prefix."""
        return 0

    @property
    def keeps_first_token(self) -> bool:
        """Whether the first token of what enters the last layer is still the model's own."""
        return True

    def droppable_layers(self, sites: Sites) -> Sequence[int]:
        """Return the layers that the method acts in and can leave bare, from the lowest on (none by default)."""
        return ()

    def first_layer(self, sites: Sites) -> int:
        """Return the lowest layer that the method ever changes; the number of layers where it changes none."""
        return 0

    @property
    def varies(self) -> bool:
        """Whether `redraw` does anything."""
        return False

    def redraw(self, random: np.random.Generator | None, sites: Sites) -> None:
        """Draw what varies between batches of training, such as bare layers; with None act as in evaluation."""

    def exported(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return (config, tensors) to store after training, in the form that inference needs."""
        return self.config, {name: tensor.detach() for name, tensor in self.state_dict().items()}

    # what all methods share -----------------------------------------------------------------------------

    def train_backbone(self, sites: Sites, names: Iterable[str]) -> None:
        """Take clones of these backbone parameters among the method's own."""
        originals = dict(sites.backbone_parameters())
        for name in names:
            self.replaced[escape(name)] = nn.Parameter(originals[name].detach().clone())

    @property
    def attached(self) -> bool:
        """Whether the method acts on a backbone now."""
        return bool(self._attached)

    @property
    def handles(self) -> list[Handle]:
        """The hooks through which it acts now."""
        return [handle for _, attachment in self._attached for handle in attachment.handles]

    @property
    def merged(self) -> bool:
        """Whether the method is folded into the backbone's weights now."""
        return self._merged

    def attach(self, sites: Sites) -> None:
        """Act on the backbone from now on, behind what is attached to it already.

        With `sites.rows` it acts on these rows of the batch alone; of several groups of rows each meets its own of the
        method's tensors, which are stacked then (see `peftbench.methods.stacking`).

        Raises UserError where this method is attached already. After an error the backbone is as it was.
        """
        if self.attached:
            raise UserError("this method is attached to a backbone already: detach it first")
        if sites.rows is None:
            attachment = Attachment(
                partial(self._acting_hooks, sites),
                replacements(sites, self.replaced, lambda: self.bare),
                pyramid=self.pyramid,
            )
        else:
            attachment = Attachment(partial(self._hook_rows, sites))
        self._attached.append((sites, attachment))
        try:
            sites.attachments.add(attachment)
        except BaseException:
            self._attached.clear()
            raise

    def detach(self) -> None:
        """Give the backbone back as it would be without this method, bit for bit."""
        for sites, attachment in self._attached:
            sites.attachments.remove(attachment)
        self._attached.clear()
        self._merged = False

    def merge(self) -> None:
        """Fold the method into the backbone's weights: no cost at inference from then on.

        Raises UserError where the method is not attached, cannot be merged or leaves layers bare, or where others on
        the same maps would then act before what they act behind.
        """
        if not self.mergeable:
            raise UserError(f"method {self.name} cannot be merged into the backbone's weights")
        if not self.attached:
            raise UserError("attach the method before merging it")
        if self.merged:
            return
        if self.bare:
            raise UserError("weights are merged in all layers, and some are bare: end that with drop([]) first")
        for sites, attachment in self._attached:
            sites.attachments.change(attachment, None, folding(self.fold(sites)))
        self._merged = True

    def unmerge(self) -> None:
        """Put the weights back that the backbone has without the method, bit for bit, and act beside them."""
        if not self.merged:
            return
        for sites, attachment in self._attached:
            sites.attachments.change(attachment, partial(self._acting_hooks, sites))
        self._merged = False

    def drop(self, layers: Iterable[int]) -> None:
        """Leave these layers bare from now on, those of a later call in their place; an empty list ends it.

        A bare layer is the backbone's own: no hook on its sites acts and no parameter in it is replaced. Parameters
        outside of the layers (the embeddings' norm) reach bare ones too: they are replaced while no layer is bare.
        Raises UserError where the method is merged.
        """
        if self.merged:
            raise UserError("a merged method cannot leave layers bare: unmerge it first")
        bare = frozenset(layers)
        if bare == self.bare:
            return
        self.bare = bare
        for sites, attachment in self._attached:
            sites.attachments.renew(attachment)

    @contextmanager
    def on(self, sites: Sites) -> Iterator[None]:
        """Attach for the length of a `with` block."""
        self.attach(sites)
        try:
            yield
        finally:
            self.detach()

    def _acting_hooks(self, sites: Sites) -> Iterator[Handle]:
        """Register the hooks and take those on the sites of bare layers off again."""
        for handle in self.hook(sites):
            site = getattr(handle, "site", None)
            if site is not None and site.layer in self.bare:
                handle.remove()
            else:
                yield handle

    def _hook_rows(self, sites: Sites) -> Iterator[Handle]:
        assert sites.rows is not None
        replacements = {unescape(key): clone for key, clone in self.replaced.items()}
        yield from row_parameters(sites.base, sites.rows, replacements)
        yield from self._acting_hooks(sites)


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise UserError where `value` is below `least`."""
    if value < least:
        raise UserError(f"method.{name}={value:g} must be {least:g} or more")


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise UserError, naming the choices, where `value` is not one of them."""
    if value not in (names := list(choices)):
        raise UserError(f"method.{name}={value} is unknown: choose from {', '.join(names)}")


def check_dropout(rate: float) -> None:
    """Raise UserError where `method.dropout` is no rate from 0 to below 1."""
    if not 0 <= rate < 1:
        raise UserError(f"method.dropout={rate:g} must lie in 0 … 1, 1 left out")


def check_scale(scale: float, scaled: str) -> None:
    """Raise UserError where `method.scale` is 0; `scaled`: what it multiplies, in words."""
    if scale == 0:
        raise UserError(f"method.scale=0 leaves the {scaled} without effect: choose another scale")

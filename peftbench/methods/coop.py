"""CoOp (Zhou et al. 2022): trained vectors in the place of the words around a class's name, read by CLIP.

[V]₁ … [V]ₙ NAME. with NAME at the end, in the middle (behind the first half of the vectors) or in front; the vectors
are shared by all classes, or each class has its own. They start from N(0, 0.02²); both towers stay as they are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.class_texts import POSITIONS, ClassTexts, check_distinct, class_names, surround_names
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone
from peftbench.backbones.sites import Sites
from peftbench.backbones.text_head import add_text_head, longest_text
from peftbench.errors import UserError
from peftbench.methods.base import Method, check_at_least, check_choice

START_DEVIATION = 0.02


@dataclass(frozen=True)
class CoopConfig:
    """Settings of CoOp.

    Attributes:
        length: n, number of vectors.
        per_class: each class has vectors of its own.
        position: of the class's name among them, out of `POSITIONS`.
        class_names: one for each class, in their order; None takes the task's labels.
    """

    length: int = 16
    per_class: bool = False
    position: str = "end"
    class_names: list[str] | None = None

    def __post_init__(self) -> None:
        check_at_least("length", self.length, 1)
        check_choice("position", self.position, POSITIONS)
        check_distinct(self.class_names)


class Coop(Method, name="coop"):
    """The vectors, (n, width of the tower of texts), or for each class, (classes, n, width)."""

    config_class = CoopConfig
    config: CoopConfig
    answers_through = "class_texts"
    modalities = ("images",)

    def __init__(self, config: CoopConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        embeddings = sites.model.class_embeddings
        of_classes = (embeddings.classes,) if config.per_class else ()
        shape = (*of_classes, config.length, embeddings.width)
        self.context = nn.Parameter(torch.empty(shape).normal_(std=START_DEVIATION))

    @classmethod
    def put_head(cls, config: CoopConfig, backbone: Backbone, labels: Sequence[str], texts: int) -> HeadedBackbone:
        """Let the backbone answer with the names; UserError where they do not fit the classes or the model."""
        names = class_names(labels, config.class_names, cls.name)
        longest = longest_text(backbone)
        if config.length >= longest:
            raise UserError(f"method.length={config.length}: the model reads {longest} tokens, the class's name too")
        if backbone.tokenizer is None:  # shapes alone
            return add_text_head(backbone, ClassTexts.blank(len(names), config.length))
        rows = surround_names(backbone.tokenizer, names, config.length, config.position, longest)
        return add_text_head(backbone, rows)

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Give the texts their vectors."""
        yield sites.model.class_embeddings.register_forward_pre_hook(lambda module, args: (self.context,))

    def first_layer(self, sites: Sites) -> int:
        """Return the number of layers: none of the images' is changed."""
        return len(sites.layers)

    @staticmethod
    def count(config: CoopConfig, sites: Sites) -> int:
        """n·d, d the width of the tower of texts, for each class where they have their own."""
        embeddings = sites.model.class_embeddings
        return config.length * int(embeddings.width) * (int(embeddings.classes) if config.per_class else 1)

"""Zero-shot classification by CLIP (Radford et al. 2021, §3.1): texts about the classes answer, and nothing trains.

"a picture of a {class}" with each class's name; of several templates a class's embedding is the mean of the texts',
each normed, normed again (§3.1.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from peftbench.backbones.class_texts import ClassTexts, check_distinct, class_names, fill_templates
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone
from peftbench.backbones.sites import Sites
from peftbench.backbones.text_head import add_text_head, longest_text
from peftbench.errors import UserError
from peftbench.methods.base import Method


@dataclass(frozen=True)
class ZeroShotConfig:
    """Settings of zero-shot classification.

    Attributes:
        templates: texts with {class} where the name of a class stands.
        class_names: one for each class, in their order; None takes the task's labels.
    """

    templates: list[str] = field(default_factory=lambda: ["a picture of a {class}"])
    class_names: list[str] | None = None

    def __post_init__(self) -> None:
        if not self.templates:
            raise UserError('method.templates is empty: name at least one, such as ["a picture of a {class}"]')
        for template in self.templates:
            if "{class}" not in template:
                raise UserError(f"method.templates: {template!r} has no {{class}}, where the name of a class stands")
        check_distinct(self.class_names)


class ZeroShot(Method, name="zero_shot"):
    """Without tensors: its texts are the head."""

    config_class = ZeroShotConfig
    config: ZeroShotConfig
    answers_through = "class_texts"
    modalities = ("images",)

    @classmethod
    def put_head(cls, config: ZeroShotConfig, backbone: Backbone, labels: Sequence[str], texts: int) -> HeadedBackbone:
        """Let the backbone answer with the templates; UserError where the names do not fit the classes or the model."""
        names = class_names(labels, config.class_names, cls.name)
        if backbone.tokenizer is None:  # shapes alone
            return add_text_head(backbone, ClassTexts.blank(len(names), 0))
        longest = longest_text(backbone)
        return add_text_head(backbone, fill_templates(backbone.tokenizer, config.templates, names, longest))

    def first_layer(self, sites: Sites) -> int:
        """Return the number of layers: none is changed."""
        return len(sites.layers)

    @staticmethod
    def count(config: ZeroShotConfig, sites: Sites) -> int:
        """Nothing."""
        return 0

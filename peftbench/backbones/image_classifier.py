"""A classifier on encoders of images for which transformers has none (DINOv3): what it has for DINOv2."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel


class ImageClassifier(PreTrainedModel):
    """A linear map on the class token beside the mean of the patches, behind the final norm; registers are left out."""

    base_model_prefix = "encoder"
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config)
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> "ImageClassifier":
        """Build it without weights, as transformers' own Auto classes do."""
        return cls(config)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Return an object with `.logits`, (images, classes)."""
        states = self.encoder(pixel_values).last_hidden_state
        special = 1 + getattr(self.config, "num_register_tokens", 0)
        return SimpleNamespace(logits=self.classifier(torch.cat([states[:, 0], states[:, special:].mean(1)], -1)))

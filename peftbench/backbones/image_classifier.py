"""A classifier on encoders of images for which transformers has none (DINOv3, a bare SigLIP): that of their kin.

With a class token it is DINOv2's, on that token beside the mean of the patches, registers left out; without one it is
SigLIP's, on the mean of the patches alone. Both read what the encoder returns: behind the final norm, which CLIP's kin
keep for their tower of texts (transformers' classifier on all of CLIP reads the mean of the patches alone there).
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel

from peftbench.backbones.image_tokens import image_tokens
from peftbench.backbones.recognise import recognise


class ImageClassifier(PreTrainedModel):
    """A linear map on what stands for the whole image."""

    base_model_prefix = "encoder"
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.encoder = AutoModel.from_config(config)
        layout, base = recognise(self.encoder)
        tokens = image_tokens(base, layout)
        self.special, self.behind = (0, 0) if tokens is None else (tokens.special, tokens.behind)
        self.classifier = nn.Linear(2 * width if self.special else width, config.num_labels)
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, folder: Path, *, config: Any, output_loading_info: bool, **settings: Any
    ) -> tuple["ImageClassifier", dict[str, Any]]:
        """Load the encoder as its own class does, which knows how its checkpoints name things, under no classifier yet.

        Returns the model, and what transformers says of loading, by this class' names.
        """
        encoder, info = AutoModel.from_pretrained(folder, config=config, output_loading_info=True, **settings)
        with torch.device("meta"):
            model = cls(config)
        model.encoder = encoder
        inside, outside = f"{cls.base_model_prefix}.", {f"classifier.{name}" for name in model.classifier.state_dict()}
        missing = {*outside, *(inside + name for name in info["missing_keys"])}
        mismatched = [(inside + name, *shapes) for name, *shapes in info["mismatched_keys"]]
        return model, {"missing_keys": missing, "mismatched_keys": mismatched}

    @classmethod
    def from_config(cls, config: Any, **settings: Any) -> "ImageClassifier":
        """Build it without weights, as transformers' own Auto classes do."""
        return cls(config)

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Return an object with `.logits`, (images, classes)."""
        states = self.encoder(pixel_values).last_hidden_state
        mean = states[:, self.special : states.shape[1] - self.behind].mean(1)
        return SimpleNamespace(logits=self.classifier(torch.cat([states[:, 0], mean], -1) if self.special else mean))

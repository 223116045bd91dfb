"""CLIP's tower of texts as the head of its tower of images: an image is of the class whose text it is most like.

Radford et al. 2021, §3.1: the logit of a class is the cosine between the image's embedding and the class's, times the
scale of the pretraining. A class's embedding is its text's, normed; of several texts the mean of those, normed again.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.class_texts import ClassTexts
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone

# texts that are computed at once where no gradient is wanted
_AT_ONCE = 256


class TextHead(nn.Module):
    """A model of `pixel_values` whose `.logits`, (images, classes), say how like an image is to each class's texts.

    Attributes:
        towers: CLIP. class_embeddings: a module, called with the vectors in the texts' places.
    """

    def __init__(self, towers: Any, texts: ClassTexts) -> None:
        super().__init__()
        self.towers, self.class_embeddings = towers, ClassEmbeddings(towers, texts)
        self.config = towers.config.vision_config

    def forward(self, pixel_values: torch.Tensor, **columns: Any) -> Any:
        """Return an object with `.logits`, float32."""
        images = self.towers.visual_projection(self.towers.vision_model(pixel_values, **columns).pooler_output)
        classes = self.class_embeddings()
        with torch.autocast(images.device.type, enabled=False):  # a cosine times 100 is too large for bf16
            cosines = F.normalize(images.float(), dim=-1) @ F.normalize(classes.float(), dim=-1).T
            return SimpleNamespace(logits=self.towers.logit_scale.exp() * cosines)


class ClassEmbeddings(nn.Module):
    """The classes' embeddings, (classes, projection), of length 1, computed again only where vectors have changed.

    Attributes:
        width: of a token's embedding. classes: how many.
    """

    ids: torch.Tensor
    places: torch.Tensor

    def __init__(self, towers: Any, texts: ClassTexts) -> None:
        super().__init__()
        self.text_model, self.text_projection = towers.text_model, towers.text_projection
        self.width, self.classes = towers.config.text_config.hidden_size, texts.classes
        self.register_buffer("ids", texts.ids, persistent=False)
        self.register_buffer("places", texts.places, persistent=False)
        self._kept: tuple[torch.dtype, torch.Tensor, torch.Tensor] | None = None  # of weights, vectors, what they gave

    def forward(self, vectors: torch.Tensor | None = None) -> torch.Tensor:
        """Return the embeddings.

        Args:
            vectors: (n, width), or for each class, (classes, n, width); None where the texts have no places.
        """
        if vectors is not None and vectors.requires_grad and torch.is_grad_enabled():
            return self._embedded(self.ids, self.places, vectors)
        given = self.ids if vectors is None else vectors.detach()
        dtype = self.text_projection.weight.dtype
        if self._kept is None or not _same((dtype, given), self._kept):
            # once, so in fp32 unless the weights are held in bf16
            with torch.no_grad(), torch.autocast(given.device.type, enabled=dtype == torch.bfloat16):
                self._kept = dtype, given.clone(), self._in_parts(vectors)
        return self._kept[2]

    def _in_parts(self, vectors: torch.Tensor | None) -> torch.Tensor:
        per_class = len(self.ids) // self.classes
        step = max(1, _AT_ONCE // per_class)
        parts = []
        for start in range(0, self.classes, step):
            rows = slice(start * per_class, (start + step) * per_class)
            class_vectors = vectors[start : start + step] if vectors is not None and vectors.dim() == 3 else vectors
            parts.append(self._embedded(self.ids[rows], self.places[rows], class_vectors))
        return torch.cat(parts)

    def _embedded(self, ids: torch.Tensor, places: torch.Tensor, vectors: torch.Tensor | None) -> torch.Tensor:
        def put(module: nn.Module, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
            return put_vectors(embedded, places, vectors) if vectors is not None else embedded

        handle = self.text_model.get_input_embeddings().register_forward_hook(put)
        try:
            texts = self.text_projection(self.text_model(input_ids=ids).pooler_output).float()
        finally:
            handle.remove()
        per_class = len(self.ids) // self.classes
        means = F.normalize(texts, dim=-1).view(-1, per_class, texts.shape[-1]).mean(1)
        return F.normalize(means, dim=-1)


def _same(now: tuple[torch.dtype, torch.Tensor], kept: tuple[torch.dtype, torch.Tensor, torch.Tensor]) -> bool:
    """Tell whether what was kept is of these weights' type and these vectors."""
    return now[0] == kept[0] and now[1].device == kept[1].device and torch.equal(now[1], kept[1])


def put_vectors(embedded: torch.Tensor, places: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return embedded tokens, (texts, tokens, d), with vectors in some places of each row.

    Args:
        places: (texts, n). vectors: (n, d), or for each text, (texts, n, d).
    """
    index = places[..., None].expand(-1, -1, embedded.shape[-1])
    return embedded.scatter(1, index, vectors.to(embedded.dtype).expand(len(embedded), -1, -1))


def longest_text(backbone: Backbone) -> int:
    """Return how many tokens the tower of texts reads."""
    assert backbone.towers is not None
    towers: Any = backbone.towers
    return int(towers.config.text_config.max_position_embeddings)


def add_text_head(backbone: Backbone, texts: ClassTexts) -> HeadedBackbone:
    """Let a tower of images answer with the texts of classes; nothing of this head trains.

    Args:
        backbone: loaded with its tower of texts.
    """
    assert backbone.towers is not None
    towers: Any = backbone.towers
    model = TextHead(towers, texts)
    model.class_embeddings.to(backbone.sites.device)
    sites = replace(backbone.sites, model=model, head_modules=(towers.visual_projection,))
    return HeadedBackbone(backbone, model.eval(), sites, {})

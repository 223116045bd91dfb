"""Cloze prompts: the task as a sentence with a gap, answered by the head of the backbone's own pretraining.

Without `{soft:n}` in the template nothing trains (zero-shot), and what the model prefers whatever the text is taken
out (contextual calibration, Zhao et al. 2021, §5: the probabilities divided by their mean over three texts without
content). `{soft:n}` puts n trained vectors among the words' embeddings (P-tuning, Liu et al. 2021; the vectors
themselves, not the LSTM that makes them there, start as the embeddings of words drawn from the vocabulary).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone
from peftbench.backbones.probe import probing
from peftbench.backbones.site import Site
from peftbench.backbones.sites import Sites
from peftbench.backbones.template import DEFAULTS, Piece, parse_template
from peftbench.backbones.word_head import add_word_head
from peftbench.errors import UserError
from peftbench.methods.base import Method

# Zhao et al. 2021, §5: texts that say nothing of any class
WITHOUT_CONTENT = ("N/A", "[MASK]", "")
_LONGEST = 512


@dataclass(frozen=True)
class ClozeConfig:
    """Settings of a cloze prompt.

    Attributes:
        template: the sentence, with {text}, or {text_a} and {text_b} for pairs, {mask} and any number of {soft:n};
            None takes a plain one.
        words: a label word for each class, in their order; None takes the classes' names.
        calibrate: whether the answers are set against those to texts without content; None where nothing trains.
    """

    template: str | None = None
    words: list[str] | None = None
    calibrate: bool | None = None

    def __post_init__(self) -> None:
        if self.template is not None:
            parse_template(self.template)
        if self.words is not None and len(set(self.words)) < len(self.words):
            raise UserError(f"method.words={self.words}: each class needs a word of its own")
        if self.calibrate and self.soft:
            raise UserError("method.calibrate=true is for templates without {soft:n}, whose vectors learn as much")

    @property
    def soft(self) -> int:
        """How many vectors train."""
        return sum(piece.soft for piece in self.pieces())

    def pieces(self, texts: int = 1) -> list[Piece]:
        """Return the template's pieces; `texts`: of an example, which decide where no template is given."""
        return parse_template(DEFAULTS[texts - 1] if self.template is None else self.template)


class Cloze(Method, name="cloze"):
    """The soft vectors of a template, (n, width of the embeddings), and the answers to no content."""

    config_class = ClozeConfig
    config: ClozeConfig
    answers_through = "masked_lm"
    modalities = ("texts",)
    prior: torch.Tensor

    def __init__(self, config: ClozeConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        embeddings = sites.base.get_input_embeddings()
        if config.soft:
            drawn = torch.randint(len(embeddings.weight), (config.soft,), device="cpu")
            self.vectors = nn.Parameter(embeddings.weight.detach()[drawn.to(sites.device)].clone())
        elif config.calibrate is not False:
            self.register_buffer("prior", _without_content(sites))

    @classmethod
    def put_head(cls, config: ClozeConfig, backbone: Backbone, labels: Sequence[str], texts: int) -> HeadedBackbone:
        """Let the backbone answer with the label words; UserError where they do not fit the classes or the model."""
        if not labels:
            raise UserError("method=cloze answers with a word for each class, and this task's labels are scores")
        words = list(labels) if config.words is None else config.words
        if len(words) != len(labels):
            raise UserError(
                f"method.words names {len(words)} words for {len(labels)} classes: one each, for {', '.join(labels)}"
            )
        if config.template is not None:
            parse_template(config.template, texts)
        if config.soft >= backbone.sites.positions:
            raise UserError(
                f"method.template has {config.soft} vectors, and the model takes {backbone.sites.positions} tokens:"
                " give {soft:n} a smaller n"
            )
        return add_word_head(backbone, words, config.pieces(texts))

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Put the vectors in their places, or take what no content gets off the answers."""
        if self.config.soft:
            embeddings = Site(sites.base.get_input_embeddings(), name="word embeddings")
            yield embeddings.replace(lambda x: soften(x, sites.model.soft, self.vectors))
        elif self.config.calibrate is not False:
            yield Site(sites.model.words, name="label words").replace(lambda logits: logits - self.prior.log())

    def probe(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put the vectors into a batch of token ids, as the template's tokenizer does."""
        ids = batch["input_ids"].clone()
        vectors = -1 - torch.arange(min(self.config.soft, ids.shape[1] - 1), device=ids.device)
        ids[0, 1 : 1 + len(vectors)] = vectors
        return {**batch, "input_ids": ids}

    @staticmethod
    def count(config: ClozeConfig, sites: Sites) -> int:
        """n·d, d the width of the word embeddings: nothing without soft vectors."""
        return config.soft * sites.base.get_input_embeddings().embedding_dim


def soften(x: torch.Tensor, soft: torch.Tensor | None, vectors: torch.Tensor) -> torch.Tensor:
    """Return embedded tokens with vectors in the places of some.

    Args:
        x: (batch, sequence, d). soft: (batch, sequence), k where vector k-1 stands and 0 where the token stays; None
            leaves all. vectors: (n, d).
    """
    if soft is None:
        return x
    return torch.where((soft > 0)[..., None], vectors.to(x.dtype)[(soft - 1).clamp(min=0)], x)


@torch.no_grad()
def _without_content(sites: Sites) -> torch.Tensor:
    """Return the classes' mean probabilities over texts without content, (classes,)."""
    if sites.processor is None:
        return torch.ones(len(sites.model.words.ids))
    texts = sum(piece.place.startswith("text") for piece in sites.processor.pieces)
    columns = [[text] * texts for text in WITHOUT_CONTENT]
    longest = min(_LONGEST, sites.positions)
    with probing(sites.model):
        sites.model.eval()
        rows = [sites.processor(*zip(row), max_length=longest)["input_ids"] for row in columns]
        logits = [sites.model(input_ids=torch.tensor(ids, device=sites.device)).logits for ids in rows]
    return torch.cat(logits).float().softmax(-1).mean(0)

"""A masked-language-model head as a classifier: the logits of a word for each class, at the mask.

The encoder runs over all rows of a sequence; the language model's head, whose last map is as wide as the vocabulary,
sees the mask's row alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone
from peftbench.backbones.template import Piece, TemplateTokenizer
from peftbench.errors import UserError


class WordHead(nn.Module):
    """A model of a batch's columns whose `.logits`, (batch, classes), are those of the classes' words at the mask.

    Attributes:
        encoder: under `language_model`. words: picks the classes' logits, (batch, classes), from the vocabulary's.
        soft: of the batch that is being computed, which trained vector stands at each position, counted from 1, and
            0 for none; (batch, sequence).
    """

    def __init__(self, language_model: Any, word_ids: Sequence[int], mask_id: int, unknown_id: int) -> None:
        super().__init__()
        self.language_model, self.words = language_model, PickWords(word_ids)
        self.config = language_model.config
        self.mask_id, self.unknown_id = mask_id, unknown_id
        self.soft: torch.Tensor | None = None

    def forward(self, input_ids: torch.Tensor, **columns: Any) -> Any:
        """Return an object with `.logits`; an id of -k says that the k-th trained vector stands there."""
        base = self.language_model.base_model
        mask = (input_ids == self.mask_id).int().argmax(1)
        rows = torch.arange(len(mask), device=mask.device)

        def keep_mask(module: nn.Module, args: tuple, output: Any) -> Any:
            output["last_hidden_state"] = output["last_hidden_state"][rows, mask][:, None]
            return output

        self.soft = (-input_ids).clamp(min=0)
        handle = base.register_forward_hook(keep_mask)
        try:
            ids = input_ids.where(input_ids >= 0, self.unknown_id)
            logits = self.language_model(input_ids=ids, **columns).logits
        finally:
            handle.remove()
            self.soft = None
        return SimpleNamespace(logits=self.words(logits[:, 0]))


class PickWords(nn.Module):
    """From the vocabulary's logits, (batch, vocabulary), those of the classes' words, (batch, classes)."""

    def __init__(self, word_ids: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(word_ids, device="cpu"), persistent=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Pick."""
        return logits[:, self.ids]  # type: ignore[index]


def add_word_head(backbone: Backbone, words: Sequence[str], pieces: Sequence[Piece]) -> HeadedBackbone:
    """Let a backbone answer with words at a template's mask; nothing of this head trains.

    Args:
        backbone: loaded with its masked-language-model head.
        words: one a class. pieces: of the template; its tokenizer takes the place of the backbone's.

    Raises UserError for words that are not one token each, or the same one.
    """
    sites, language_model = backbone.sites, backbone.language_model
    assert language_model is not None
    if sites.processor is None:  # shapes alone, from a config: any words will do
        tokenizer, ids, mask_id, unknown_id = None, list(range(len(words))), 0, 0
    else:
        tokenizer = TemplateTokenizer(sites.processor, pieces)
        spaced = next(piece.spaced for piece in pieces if piece.place == "mask")
        ids = _word_ids(words, tokenizer, spaced)
        mask_id = tokenizer.mask_token_id
        unknown_id = mask_id if tokenizer.unk_token_id is None else tokenizer.unk_token_id
    model = WordHead(language_model, ids, mask_id, unknown_id)
    if sites.device.type != "meta":
        model.words.to(sites.device)
    return HeadedBackbone(backbone, model.eval(), replace(sites, model=model, processor=tokenizer), {})


def _word_ids(words: Sequence[str], tokenizer: TemplateTokenizer, spaced: bool) -> list[int]:
    ids = []
    for word, found in zip(words, tokenizer.ids(words, spaced), strict=True):
        if len(found) != 1:
            tokens = ", ".join(tokenizer.convert_ids_to_tokens(found))
            raise UserError(
                f"method.words: {word!r} is {len(found)} tokens to this model ({tokens}): choose a word that is one,"
                " by method.words=[…], in the order of the classes"
            )
        if found[0] == tokenizer.unk_token_id:
            raise UserError(f"method.words: {word!r} is unknown to this model: choose another word")
        if found[0] in tokenizer.all_special_ids:
            raise UserError(f"method.words: {word!r} is a special token of this model and no word: choose another")
        ids += found
    if len(set(ids)) < len(ids):
        raise UserError(f"method.words: two of {', '.join(words)} are the same to this model: choose others")
    return ids

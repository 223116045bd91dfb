"""Prompt tuning (Lester et al. 2021): trained vectors among the embedded input, and nothing else.

The vectors enter where the first layer reads (behind the embeddings' own layer norm), so token positions and
segments stay as they are; where positions are not in the embeddings (rotary) the vectors count as tokens, and a
sliding window counts them too. The head still reads the model's own first token. Uniform initialisation follows
the official code, U[0, 0.5), not the paper's U[-0.5, 0.5] (§3.2); `vocab` samples the whole vocabulary,
since a tokenizer does not tell which 5,000 items are the commonest.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.entry import insert_at_entry, remove_tokens_after_attention
from peftbench.backbones.inputs import vocabulary
from peftbench.backbones.probe import explained, probing
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Method, check_at_least, check_choice


@dataclass(frozen=True)
class PromptConfig:
    """Settings of prompt tuning.

    Attributes:
        length: number of prompt vectors.
        init: vocab (what the embeddings give for sampled tokens) | uniform | text.
        text: with init=text, the words to start from, repeated or cut to `length` tokens.
        insert: after_first (between the first token and the rest) | front.
    """

    length: int = 20
    init: str = "vocab"
    text: str = ""
    insert: str = "after_first"

    def __post_init__(self) -> None:
        check_at_least("length", self.length, 1)
        check_choice("init", self.init, ("vocab", "uniform", "text"))
        check_choice("insert", self.insert, ("after_first", "front"))
        if (self.init == "text") != bool(self.text):
            raise UserError("method.text and method.init=text go together: set both or neither")


class Prompt(Method, name="prompt"):
    """The prompt's vectors, (length, entry_width)."""

    config_class = PromptConfig
    modalities = ("texts",)
    config: PromptConfig

    def __init__(self, config: PromptConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        if config.length >= sites.positions:
            raise UserError(
                f"method.length={config.length} leaves no room for text: the model takes {sites.positions} tokens"
            )
        if config.init == "uniform" or sites.device.type == "meta":  # without weights there is nothing to embed
            vectors = torch.rand(config.length, sites.entry_width) / 2
        else:
            vectors = _embedded(sites, _token_ids(config, sites))
        self.vectors = nn.Parameter(vectors)

    @property
    def _at(self) -> int:
        return 1 if self.config.insert == "after_first" else 0

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Put the prompt in before the first layer."""
        length = self.config.length
        yield from insert_at_entry(sites, lambda: self.vectors, length, self._at)
        if self.config.insert == "front" or sites.head_modules:
            yield remove_tokens_after_attention(sites, length, self._at)

    @property
    def extra_positions(self) -> int:
        """Each sequence grows by `length` tokens."""
        return self.config.length

    @property
    def inserted_tokens(self) -> int:
        """The prompt's vectors."""
        return self.config.length

    @property
    def keeps_first_token(self) -> bool:
        """Behind a prompt in front the model's own first token is no longer the first."""
        return self.config.insert == "after_first"

    @staticmethod
    def count(config: PromptConfig, sites: Sites) -> int:
        """length·d, d the width of what enters the encoder."""
        return config.length * sites.entry_width


def _token_ids(config: PromptConfig, sites: Sites) -> torch.Tensor:
    if config.init == "vocab":
        return torch.randint(vocabulary(sites), (config.length,))
    if sites.processor is None:
        raise UserError("method.init=text needs a tokenizer: find_sites(model, tokenizer)")
    ids = sites.processor(config.text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserError(f"method.text={config.text!r} holds no token")
    return torch.tensor((ids * config.length)[: config.length])


@torch.no_grad()
def _embedded(sites: Sites, ids: torch.Tensor) -> torch.Tensor:
    """Return what enters the first layer for these tokens, (length, d)."""
    entered: list[torch.Tensor] = []
    base = sites.base
    with explained(f"{type(base).__name__} does not run on token ids alone"), probing(base):
        base.eval()
        handle = sites.at("embeddings")[0].watch(entered.append)
        try:
            base(input_ids=ids[None].to(sites.device))
        finally:
            handle.remove()
    return entered[0][0].float().cpu().clone()

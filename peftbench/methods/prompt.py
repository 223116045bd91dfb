"""Prompt tuning (Lester et al. 2021): trained vectors among the embedded input, and nothing else.

The vectors enter where the first layer reads (behind the embeddings' own layer norm), so token positions and
segments stay as they are. The head still reads the model's own first token. Uniform initialisation follows
the official code, U[0, 0.5), not the paper's U[-0.5, 0.5] (§3.2); `vocab` samples the whole vocabulary,
since a tokenizer does not tell which 5,000 items are the commonest.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError
from peftbench.methods.base import Handle, Method, check_at_least, check_choice


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


def insert_rows(x: torch.Tensor, rows: torch.Tensor, at: int) -> torch.Tensor:
    """Return x with rows put in at index `at` of each sequence.

    Args:
        x: (batch, sequence, d). rows: (length, d). at: 0 … sequence.
    """
    own = rows.to(x.dtype).expand(x.shape[0], -1, -1)
    return torch.cat([x[:, :at], own, x[:, at:]], dim=1)


def widen_mask(mask: torch.Tensor, length: int, at: int) -> torch.Tensor:
    """Return a padding mask that also lets `length` positions from index `at` on be seen by all.

    Args:
        mask: (batch, sequence) with 1 = seen, or (batch, 1, queries, sequence) as attention takes it: boolean
            with True = seen, or floating with 0 = seen.
    """
    additive = mask.dim() == 4 and mask.is_floating_point()
    seen = mask.new_full((*mask.shape[:-1], length), 0 if additive else 1)
    mask = torch.cat([mask[..., :at], seen, mask[..., at:]], dim=-1)
    if mask.dim() == 4 and mask.shape[-2] > 1:
        rows = mask[..., :1, :].expand(-1, -1, length, -1)  # a padding mask is the same for every query
        mask = torch.cat([mask[..., :at, :], rows, mask[..., at:, :]], dim=-2)
    return mask


class Prompt(Method, name="prompt"):
    """The prompt's vectors, (length, d)."""

    config_class = PromptConfig
    config: PromptConfig

    def __init__(self, config: PromptConfig, sites: Sites) -> None:
        super().__init__(config, sites)
        if config.length >= sites.positions:
            raise UserError(
                f"method.length={config.length} leaves no room for text: the model takes {sites.positions} tokens"
            )
        if config.init == "uniform" or sites.device.type == "meta":  # without weights there is nothing to embed
            vectors = torch.rand(config.length, sites.hidden) / 2
        else:
            vectors = _embedded(sites, _token_ids(config, sites))
        self.vectors = nn.Parameter(vectors)

    @property
    def _at(self) -> int:
        return 1 if self.config.insert == "after_first" else 0

    def hook(self, sites: Sites) -> Iterable[Handle]:
        """Put the prompt in before the first layer."""
        (encoder,) = sites.at("embeddings")

        def insert(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            call = dict(zip(("hidden_states", "attention_mask"), args, strict=False)) | kwargs
            call["hidden_states"] = insert_rows(call["hidden_states"], self.vectors, self._at)
            if call.get("attention_mask") is not None:
                call["attention_mask"] = widen_mask(call["attention_mask"], self.config.length, self._at)
            return args[2:], call

        def leave_out(module: nn.Module, args: tuple) -> tuple:
            x, at = args[0], self._at
            own = x[:, self.config.length :] if at == 0 else torch.cat([x[:, :at], x[:, at + self.config.length :]], 1)
            return (own, *args[1:])

        yield encoder.register_forward_pre_hook(insert, with_kwargs=True)
        if self.config.insert == "front" or sites.head_modules:
            # no head reads the prompt's rows: behind the last attention only the text's go on
            yield sites.at("attention.norm")[-1].register_forward_pre_hook(leave_out)

    @property
    def extra_tokens(self) -> int:
        """Each sequence grows by `length` rows."""
        return self.config.length

    @property
    def keeps_first_row(self) -> bool:
        """Behind a prompt in front the first token is no longer row 0."""
        return self.config.insert == "after_first"

    @staticmethod
    def count(config: PromptConfig, sites: Sites) -> int:
        """length·d."""
        return config.length * sites.hidden


def _token_ids(config: PromptConfig, sites: Sites) -> torch.Tensor:
    if config.init == "vocab":
        vocabulary = sites.base.config.vocab_size
        return torch.randint(vocabulary, (config.length,))
    if sites.tokenizer is None:
        raise UserError("method.init=text needs a tokenizer: find_sites(model, tokenizer)")
    ids = sites.tokenizer(config.text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UserError(f"method.text={config.text!r} holds no token")
    return torch.tensor((ids * config.length)[: config.length])


@torch.no_grad()
def _embedded(sites: Sites, ids: torch.Tensor) -> torch.Tensor:
    """Return what enters the first layer for these tokens, (length, d)."""
    (encoder,) = sites.at("embeddings")
    entered: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        entered.append(args[0] if args else kwargs["hidden_states"])

    handle = encoder.register_forward_pre_hook(keep, with_kwargs=True)
    training = sites.base.training
    sites.base.eval()
    try:
        sites.base(input_ids=ids[None].to(sites.device))
    finally:
        handle.remove()
        sites.base.train(training)
    return entered[0][0].float().cpu().clone()

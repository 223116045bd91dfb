"""More tokens in the sequence that enters the first layer, and out of it again behind the last attention."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from peftbench.backbones.attachments import Handle
from peftbench.backbones.rows import Rows
from peftbench.backbones.sites import Sites


def insert_tokens(x: torch.Tensor, tokens: torch.Tensor, at: int) -> torch.Tensor:
    """Return x, (batch, sequence + length, d), with token vectors put in at index `at` of each sequence.

    Args:
        x: (batch, sequence, d). tokens: (length, d), or for each of the batch, (batch, length, d). at: 0 … sequence.
    """
    inserted = tokens.to(x.dtype).expand(x.shape[0], -1, -1)
    return torch.cat([x[:, :at], inserted, x[:, at:]], dim=1)


def remove_tokens(x: torch.Tensor, length: int, at: int) -> torch.Tensor:
    """Return x, (batch, sequence, d), without the `length` tokens from index `at` on."""
    return x[:, length:] if at == 0 else torch.cat([x[:, :at], x[:, at + length :]], dim=1)


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


def insert_at_entry(sites: Sites, tokens: Callable[[], torch.Tensor], length: int, at: int) -> Iterator[Handle]:
    """Put `tokens()`, (length, entry_width), into what enters the first layer, at index `at`, seen by all tokens.

    Where positions are added to the embeddings the tokens keep theirs. Where they are computed from the sequence
    that enters (rotary, relative) the new ones count among the others.

    With `sites.rows` the batch already has `length` or more positions of padding behind each of these rows, masked as
    if the new tokens were there: as many of them make room.
    """
    if sites.rows is not None:
        yield _make_room(sites, sites.rows, tokens, length, at)
        return
    if sites.layout.encoder is not None:

        def enter_encoder(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            call = dict(zip(("hidden_states", "attention_mask"), args, strict=False)) | kwargs
            call["hidden_states"] = insert_tokens(call["hidden_states"], tokens(), at)
            if call.get("attention_mask") is not None:
                call["attention_mask"] = widen_mask(call["attention_mask"], length, at)
            return args[2:], call

        yield sites.at("embeddings")[0].module.register_forward_pre_hook(enter_encoder, with_kwargs=True)
        return

    def enter_base(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        call = dict(zip(("input_ids", "attention_mask"), args, strict=False)) | kwargs
        given = call["input_ids"] if call.get("input_ids") is not None else call["inputs_embeds"]
        if call.get("attention_mask") is not None:
            call["attention_mask"] = widen_mask(call["attention_mask"], length, at)
        entering = given if call.get("position_ids") is None else call["position_ids"]  # those of another prompt
        call["position_ids"] = torch.arange(entering.shape[1] + length, device=given.device)[None]
        return args[2:], call

    yield sites.base.register_forward_pre_hook(enter_base, with_kwargs=True)
    yield sites.at("embeddings")[0].replace(lambda x: insert_tokens(x, tokens(), at))


def _make_room(sites: Sites, batch: Rows, tokens: Callable[[], torch.Tensor], length: int, at: int) -> RemovableHandle:
    def enter(x: torch.Tensor) -> torch.Tensor:
        selected = batch.of(x)
        return batch.put(x, insert_tokens(selected[:, : selected.shape[1] - length], batch.spread(tokens()), at))

    def enter_encoder(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if args:
            return (enter(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": enter(kwargs["hidden_states"])}

    site = sites.at("embeddings")[0]
    if site.is_input:
        return site.module.register_forward_pre_hook(enter_encoder, with_kwargs=True)
    return site.module.register_forward_hook(lambda _, args, output: enter(output))


def remove_tokens_after_attention(sites: Sites, length: int, at: int) -> RemovableHandle:
    """Take the `length` tokens from index `at` on out again once the last layer has attended to them.

    What was put in last is taken out first.
    With `sites.rows` these rows of the batch end in as many positions of padding again.
    """

    def shorten(x: torch.Tensor) -> torch.Tensor:
        if sites.rows is None:
            return remove_tokens(x, length, at)
        kept = remove_tokens(sites.rows.of(x), length, at)
        return sites.rows.put(x, F.pad(kept, (0, 0, 0, x.shape[1] - kept.shape[1])))

    if not sites.layout.pre_norm:
        norm = sites.at("attention.norm")[-1].module
        return norm.register_forward_pre_hook(lambda _, args: (shorten(args[0]), *args[1:]), prepend=True)

    def leave(module: nn.Module, args: tuple, output: Any) -> Any:  # the residual still has every token before
        if isinstance(output, tuple):
            return (shorten(output[0]), *output[1:])
        return shorten(output)

    return sites.layers[-1].register_forward_hook(leave, prepend=True)

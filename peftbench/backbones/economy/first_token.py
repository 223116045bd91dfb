"""Spares the last layer what nobody reads: a head on the first token needs only that token of it.

Behind its keys and values the last layer works token by token, so its query, output projection, feed-forward
part and norms are run on the first token alone; the logits stay the same up to rounding.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from peftbench.backbones.attachments import Attachment
from peftbench.backbones.inputs import random_inputs, small_size
from peftbench.backbones.probe import probing
from peftbench.backbones.sites import Sites


class FirstTokenOnly:
    """Lets the last layer compute the first token of each sequence only. Attach behind any method."""

    def __init__(self, sites: Sites) -> None:
        self._attachments = sites.attachments
        self._attachment = Attachment(partial(_hooks, sites))
        self._attachments.add(self._attachment)

    def remove(self) -> None:
        """Let the last layer compute every token again."""
        self._attachments.remove(self._attachment)


def _hooks(sites: Sites) -> Iterator[RemovableHandle]:
    if sites.layout.pre_norm:  # the residual keeps all tokens: the first of the sum is right, nobody reads others
        yield sites.at("attention.output")[-1].module.register_forward_pre_hook(_first)
        yield sites.at("ffn.norm")[-1].module.register_forward_pre_hook(_first)
        return
    query, output, norm = (sites.at(f"attention.{name}")[-1].module for name in ("query", "output", "norm"))
    length: list[int] = []

    def enter(module: nn.Module, args: tuple) -> None:
        length.clear()

    def shorten_query(module: nn.Module, args: tuple) -> tuple | None:
        if length:  # DeBERTa sends its relative embeddings through the same map behind the hidden states
            return None
        length.append(args[0].shape[1])
        return _first(module, args)

    def lengthen(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
        # the attention code views the query by the sequence's length: repeat the token without copying it
        return output.expand(-1, length[0], -1) if output.shape[1] == 1 else None

    yield sites.layers[-1].register_forward_pre_hook(enter)
    yield query.register_forward_pre_hook(shorten_query)
    yield query.register_forward_hook(lengthen)
    yield output.register_forward_pre_hook(_first)
    yield norm.register_forward_pre_hook(_first)


def _first(module: nn.Module, args: tuple) -> tuple:
    return (args[0][:, :1], *args[1:])


@torch.no_grad()
def head_reads_first_token(sites: Sites) -> bool:
    """Tell whether the head reads the first token alone: with `FirstTokenOnly` a small input's output is the same."""
    model: Any = sites.model
    if not sites.head_modules or sites.device.type == "meta":
        return False
    inputs = random_inputs(sites, 2, small_size(sites, 6))
    with probing(model):
        model.eval()
        whole = model(**inputs).logits
        first = FirstTokenOnly(sites)
        try:
            return bool(torch.allclose(model(**inputs).logits, whole, rtol=1e-3, atol=1e-5))
        except RuntimeError:  # a layer that mixes tokens behind its attention does not fit the shortened one
            return False
        finally:
            first.remove()

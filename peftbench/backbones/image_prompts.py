"""More tokens among those of an image, between its special tokens and its patches."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from peftbench.backbones.attachments import Handle
from peftbench.backbones.entry import insert_tokens, remove_tokens, remove_tokens_after_attention
from peftbench.backbones.recognise import submodule
from peftbench.backbones.site import Site, SiteHandle
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError

_NAME = "prompts"

# of a layer and for so many images: (images, length, d)
Prompts = Callable[[int, int], torch.Tensor]


def insert_before_patches(sites: Sites, prompts: Prompts, length: int) -> Iterator[Handle]:
    """Put the prompts of layer 0 before the patches that enter it.

    A bias that attention gets for the patches' positions is 0 from and to them. A head never sees them: they are left
    out behind the last layer, so that a mean of patches is one of patches. An encoder without a head returns them.

    Raises UserError where another method has put tokens of its own there, or for some rows of a batch alone.
    """
    assert sites.image is not None
    at = sites.image.special
    _check_whole_batch(sites)
    if any(isinstance(handle, SiteHandle) and handle.site.name == _NAME for handle in sites.attachments.handles):
        raise UserError("there are prompts among this backbone's patches already: detach that method first")
    embedded = replace(sites.at("embeddings")[0], name=_NAME)
    yield embedded.replace(lambda x: insert_tokens(x, prompts(0, len(x)), at))
    yield from _widen_position_biases(sites, length, at)
    if (between := submodule(sites.base, sites.layout.positions_between)) not in (None, sites.base):
        yield between.register_forward_hook(lambda module, args, added: _without_positions(added, length, at))
    if sites.head_modules:
        yield remove_tokens_after_attention(sites, length, at)


def replace_prompts(sites: Sites, prompts: Prompts, length: int) -> Iterator[Handle]:
    """Let each later layer's prompts take the place of what became of those before."""
    assert sites.image is not None
    at = sites.image.special
    for number, layer in list(enumerate(sites.layers))[1:]:

        def put(x: torch.Tensor, number: int = number) -> torch.Tensor:
            return torch.cat([x[:, :at], prompts(number, len(x)).to(x.dtype), x[:, at + length :]], dim=1)

        yield Site(layer, is_input=True, name="layer", layer=number).replace(put)


def insert_in_each_layer(sites: Sites, prompts: Prompts, length: int) -> Iterator[Handle]:
    """Put each layer's prompts in front of all tokens that enter it, and leave them out again behind it.

    Position biases are as in `insert_before_patches`, and so are errors where some rows alone are meant.
    """
    _check_whole_batch(sites)
    yield from _widen_position_biases(sites, length, 0)
    for number, layer in enumerate(sites.layers):

        def put(x: torch.Tensor, number: int = number) -> torch.Tensor:
            return insert_tokens(x, prompts(number, len(x)), 0)

        yield Site(layer, is_input=True, name=_NAME, layer=number).replace(put)
        yield layer.register_forward_hook(partial(_leave_out, length))


def _without_positions(added: torch.Tensor, length: int, at: int) -> torch.Tensor:
    """Return what is added between layers, (layers - 1, 1, tokens, d), with zeros for `length` tokens from `at` on."""
    zeros = added.new_zeros(*added.shape[:2], length, added.shape[3])
    return torch.cat([added[:, :, :at], zeros, added[:, :, at:]], dim=2)


def _check_whole_batch(sites: Sites) -> None:
    if sites.rows is not None:
        raise UserError("prompts among an image's patches are for all images of a batch, not for some")


def _leave_out(length: int, module: nn.Module, args: tuple, output: Any) -> Any:
    if isinstance(output, tuple):
        return (remove_tokens(output[0], length, 0), *output[1:])
    return remove_tokens(output, length, 0)


def _widen_position_biases(sites: Sites, length: int, at: int) -> Iterator[Handle]:
    """Let the biases that attention gets for positions have `length` zeros from index `at` on."""
    for module in sites.position_biases:
        yield module.register_forward_pre_hook(partial(_ask_for_fewer, length), with_kwargs=True)
        yield module.register_forward_hook(partial(_widen, length, at))


def _ask_for_fewer(length: int, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Let a bias be made for the image's own tokens."""
    if kwargs.get("dim_size") is not None:
        kwargs = kwargs | {"dim_size": kwargs["dim_size"] - length}
    return args, kwargs


def _widen(length: int, at: int, module: nn.Module, args: tuple, bias: torch.Tensor) -> torch.Tensor:
    """Return a bias, (1, heads, tokens, tokens), with zeros for `length` tokens from index `at` on."""
    columns = torch.cat([bias[..., :at], bias.new_zeros(*bias.shape[:-1], length), bias[..., at:]], dim=-1)
    rows = bias.new_zeros(*bias.shape[:-2], length, columns.shape[-1])
    return torch.cat([columns[..., :at, :], rows, columns[..., at:, :]], dim=-2)

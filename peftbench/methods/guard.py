"""The guard: before training, a few small passes see that a method does on this model what it says.

A model whose structure is recognised may still run a module twice, hide its attention from a prefix, or let padding
into the answer. What is wrong is refused in one line; model, method and random state are left as they were.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.probe import ROWS, explained, probe_batch, probing, rewritten, second_row_alone
from peftbench.backbones.site import SiteHandle
from peftbench.errors import UserError
from peftbench.methods.base import Method

_TOLERANCE = 1e-3  # of the largest logit
_REPLACED = "replaced."


def check_method(method: Method, backbone: HeadedBackbone, longest: int | None) -> list[str]:
    """Raise UserError where the method would be silently wrong, or fail, on this backbone.

    Returns what the user should know of the backbone itself, a line each.

    Args:
        method: detached. backbone: with weights and nothing attached.
        longest: tokens of the longest row that will be trained on; None for images.
    """
    model: Any = backbone.model
    architecture = type(backbone.sites.base).__name__
    batch = method.probe(probe_batch(backbone.sites))
    with (
        explained(f"{architecture} does not run on {backbone.sites.base.main_input_name} alone"),
        probing(model),
        torch.no_grad(),
    ):
        model.eval()
        before = rewritten(model)
        bare_difference, bare_largest = _padding_difference(model, batch)
        short_rows_rewrite = before != rewritten(model)
        if backbone.backbone.dropout == 0:
            _check_no_chance(model, batch, architecture)
    if short_rows_rewrite and longest is not None:
        _check_long_rows_rewrite(model, min(longest, backbone.sites.positions), backbone.sites.device, architecture)
    runs = explained(f"method={method.name} does not run on {architecture}")
    with runs, probing(model), probing(method), _shaken(method, backbone), method.on(backbone.sites):
        model.eval()
        with torch.no_grad(), _calls(method) as calls:
            difference, largest = _padding_difference(model, batch)
        _check_calls(method, calls, architecture)
        if not math.isfinite(difference):
            raise UserError(f"method={method.name} on {architecture} gives answers that are no finite numbers")
        if difference > max(_TOLERANCE * largest, 10 * bare_difference):
            raise UserError(
                f"method={method.name} on {architecture} lets padding change the answer (by {difference:.2g})"
                f"{_causal(backbone)}: choose another method or model"
            )
        if not backbone.head and not list(method.parameters()):
            return []
        model.train()
        model(**batch).logits.float().square().sum().backward()
        _check_gradients(method, backbone, architecture)
        remarks = _without_gradient(method)
    if bare_difference > _TOLERANCE * bare_largest:
        remarks.append(
            f"{architecture} lets padding change its answer by itself: scores depend a little on the batches' lengths"
        )
    return remarks


@torch.no_grad()
def _check_long_rows_rewrite(model: Any, longest: int, device: torch.device, architecture: str) -> None:
    """Refuse a model that rewrites itself at a short batch where the longest row leaves it as it is."""
    with probing(model):
        model.eval()
        before = rewritten(model)
        model(input_ids=torch.full((1, longest), model.config.vocab_size - 1, device=device))
        if before == rewritten(model):
            raise UserError(
                f"{architecture} gives up sparse attention at the first batch of short texts, so that scores would"
                " depend on the order of the batches: set attention_type to original_full in the model's"
                " config.json, or lower task.max_length"
            )


def _check_no_chance(model: Any, batch: dict[str, torch.Tensor], architecture: str) -> None:
    model.train()
    first, second = (model(**batch).logits for _ in range(2))
    model.eval()
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-6):
        raise UserError(f"model.dropout=0 does not reach every random part of {architecture}: leave it at null")


def _padding_difference(model: Any, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Return how far a row's logits are from those it gets alone, without padding or mask, and the largest logit."""
    together = model(**batch).logits
    alone = model(**second_row_alone(batch)).logits
    return float((together[1] - alone[0]).abs().max()), float(together.abs().max())


def _causal(backbone: HeadedBackbone) -> str:
    return ", for its attention is causal (is_decoder)" if getattr(backbone.sites.base.config, "is_decoder", 0) else ""


@contextmanager
def _shaken(method: Method, backbone: HeadedBackbone) -> Iterator[None]:
    """Move the method's added tensors a little inside the block: what starts at zero acts, and passes gradients on.

    Behind it they are as they were, and no gradient is left.
    """
    generator = torch.Generator().manual_seed(0)
    replaced = {id(p) for p in method.replaced.parameters()}
    added = [(p, p.detach().clone()) for p in method.parameters() if id(p) not in replaced]
    with torch.no_grad():
        for parameter, value in added:
            noise = torch.randn(value.shape, generator=generator).to(value)
            parameter.add_(noise, alpha=0.02)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in added:
                parameter.copy_(value)
        for parameter in (*method.parameters(), *backbone.head.values()):
            parameter.grad = None


@contextmanager
def _calls(method: Method) -> Iterator[Counter[SiteHandle]]:
    """Count how often each site that the method acts on is given the whole batch inside the block."""
    calls: Counter[SiteHandle] = Counter()
    hooks = []
    for handle in method.handles:
        if isinstance(handle, SiteHandle):

            def count(module: nn.Module, args: tuple, named: dict[str, Any], handle: SiteHandle = handle) -> None:
                # a map that is also given something else (DeBERTa's relative positions) still has the batch once,
                # by rows or (Longformer) by positions first; an image has channels there
                shape = next(iter((*args, *named.values()))).shape
                if ROWS in shape[: 1 if len(shape) == 4 else 2]:
                    calls[handle] += 1

            calls[handle] = 0
            hooks.append(handle.site.module.register_forward_pre_hook(count, with_kwargs=True))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _check_calls(method: Method, calls: Counter[SiteHandle], architecture: str) -> None:
    for handle, times in calls.items():
        if times != 1:
            raise UserError(
                f"method={method.name} does not fit {architecture}: it runs {handle.site.name} {times} times in a"
                " forward pass, not once"
            )


def _check_gradients(method: Method, backbone: HeadedBackbone, architecture: str) -> None:
    """Refuse where a block of added tensors, all replaced ones together, or the head are not reached by the loss."""
    blocks: dict[str, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in method.named_parameters():
        blocks[_block_of(name, method)].append(parameter)
    if backbone.head:
        blocks["head"] = list(backbone.head.values())
    for name, block in blocks.items():
        if not any(p.grad is not None and bool(p.grad.any()) for p in block):
            raise UserError(
                f"method={method.name} does not fit {architecture}: its tensors {name} would never train, for the"
                " answer does not depend on them"
            )


def _block_of(name: str, method: Method) -> str:
    """Return what a tensor is judged with: those of its module, one of many like it (a `ParameterList`) by itself."""
    if name.startswith(_REPLACED):
        return "replaced"
    module = name.rpartition(".")[0]
    return name if not module or isinstance(method.get_submodule(module), nn.ParameterList) else module


def _without_gradient(method: Method) -> list[str]:
    """Say which of the backbone's tensors the answer does not depend on though they are counted as trained."""
    replaced = {name: p for name, p in method.named_parameters() if name.startswith(_REPLACED)}
    unread = [name.removeprefix(_REPLACED) for name, parameter in replaced.items() if parameter.grad is None]
    if not unread:
        return []
    counts = f"{len(unread)} of the {len(replaced)} tensors counted as trained"
    return [f"the answer does not depend on {counts}, such as {unread[0]}"]

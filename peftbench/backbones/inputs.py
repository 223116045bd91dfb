"""What a backbone is given, token ids or pixels, of any size: for probes and timings, the same each time."""

from typing import Any

import torch

# of a sequence its number of tokens, of an image its height and width in pixels
Size = int | tuple[int, int]

IDS, PIXELS = "input_ids", "pixel_values"


def random_inputs(base: Any, batch: int, size: Size, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch of `batch` random examples of one size, nothing padded: the same for the same arguments.

    Args:
        base: transformers' base model, which says what it takes.
        size: tokens of a sequence, none of them padding, or (height, width) of an image, normally distributed.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(size, int):
        config = base.config
        ids = torch.randint(config.vocab_size - 1, (batch, size), generator=generator)
        if config.pad_token_id is not None:
            ids += ids >= config.pad_token_id
        return {IDS: ids.to(device)}
    shape = (batch, getattr(base.config, "num_channels", 3), *size)
    return {PIXELS: torch.randn(shape, generator=generator).to(device)}


def small_size(base: Any, tokens: int) -> Size:
    """Return a size that is quick to compute: of a text `tokens`, of an image few patches."""
    if base.main_input_name == IDS:
        return tokens
    side = 4 * patch_size(base)
    return side, side


def patch_size(base: Any) -> int:
    """Return the pixels along a side of a patch; 1 of a model of texts."""
    size: Any = getattr(base.config, "patch_size", 1)
    return int(size[0] if isinstance(size, list | tuple) else size)


def positions_of(base: Any, size: Size) -> int:
    """Return how many positions an example of a size takes: tokens, or patches."""
    if isinstance(size, int):
        return size
    side = patch_size(base)
    return (size[0] // side) * (size[1] // side)

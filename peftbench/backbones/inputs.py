"""What a backbone is given, token ids or pixels, of any size: for probes and timings, the same each time."""

import math

import torch

from peftbench.backbones.image_tokens import CHANNELS
from peftbench.backbones.sites import Sites

# of a sequence its number of tokens, of an image its height and width in pixels
Size = int | tuple[int, int]

IDS, PIXELS = "input_ids", "pixel_values"


def random_inputs(sites: Sites, batch: int, size: Size) -> dict[str, torch.Tensor]:
    """Return a batch of `batch` random examples of one size, nothing padded: the same for the same arguments.

    Args:
        sites: of the backbone that takes them, on its device.
        size: tokens of a sequence, none of them padding, or (height, width) of an image, normally distributed.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(size, int):
        config = sites.base.config
        ids = torch.randint(config.vocab_size - 1, (batch, size), generator=generator)
        if config.pad_token_id is not None:
            ids += ids >= config.pad_token_id
        return {IDS: ids.to(sites.device)}
    return {PIXELS: torch.randn((batch, CHANNELS, *size), generator=generator).to(sites.device)}


def small_size(sites: Sites, tokens: int) -> Size:
    """Return a size that is quick to compute: of a text `tokens`, of an image few patches where it takes them."""
    if sites.image is None:
        return tokens
    if not sites.image.any_size:
        return sites.image.size
    height, width = sites.image.patch
    return 4 * height, 4 * width


def positions_of(sites: Sites, size: Size) -> int:
    """Return how many positions an example of a size takes: tokens, or patches."""
    if isinstance(size, int):
        return size
    assert sites.image is not None
    return math.prod(sites.image.grid(*size))

"""What a backbone is given, token ids or pixels, of any size: for probes and timings, the same each time."""

import math

import torch

from peftbench.backbones.image_tokens import CHANNELS
from peftbench.backbones.sites import Sites
from peftbench.errors import UserError

# of a sequence its number of tokens, of an image its height and width in pixels
Size = int | tuple[int, int]

IDS, PIXELS = "input_ids", "pixel_values"


def random_inputs(sites: Sites, batch: int, size: Size) -> dict[str, torch.Tensor]:
    """Return a batch of `batch` random examples of one size, nothing padded: the same for the same arguments.

    Args:
        sites: of the backbone that takes them, on its device.
        size: tokens of a sequence, none of them padding, or (height, width) of an image, normally distributed.
    """
    if isinstance(size, int):
        return {IDS: _random_ids(sites, batch, size).to(sites.device)}
    generator = torch.Generator().manual_seed(0)
    return {PIXELS: torch.randn((batch, CHANNELS, *size), generator=generator).to(sites.device)}


def half_padded(sites: Sites, batch: int, length: int, short: int) -> dict[str, torch.Tensor]:
    """Return random token ids and their mask, both (batch, length): every second row is padded from `short` on."""
    ids = _random_ids(sites, batch, length)
    mask = torch.ones_like(ids)
    ids[1::2, short:], mask[1::2, short:] = sites.base.config.pad_token_id or 0, 0
    return {IDS: ids.to(sites.device), "attention_mask": mask.to(sites.device)}


def vocabulary(sites: Sites) -> int:
    """Return how many token ids the model knows; UserError where its config does not tell."""
    size: int | None = getattr(sites.base.config, "vocab_size", None)
    if size is None:
        raise UserError(
            f"the config of {type(sites.base).__name__} has no vocab_size, so that no tokens can be drawn to try it on:"
            " choose another model"
        )
    return size


def _random_ids(sites: Sites, batch: int, length: int) -> torch.Tensor:
    """Return token ids, (batch, length), none of which is padding."""
    ids = torch.randint(vocabulary(sites) - 1, (batch, length), generator=torch.Generator().manual_seed(0))
    return ids + (ids >= (sites.base.config.pad_token_id or 0))


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

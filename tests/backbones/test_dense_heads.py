"""Heads at every place of a map: sizes, which tokens they read, what is stored of them."""

import pytest
import torch
from tiny import IMAGE_ARCHITECTURES, tiny_model
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.dense_heads import DENSE_HEADS, add_dense_head
from peftbench.backbones.feature_maps import ResizedPyramid, as_map, patch_states
from peftbench.backbones.load import Backbone, blank_backbone
from peftbench.backbones.sites import find_sites
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.guard import check_method
from peftbench.methods.interaction import Grids


def backbone(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    sites.base.requires_grad_(False)
    sites.base.eval()
    return Backbone(sites.base, type(model), find_sites(sites.base))


def pixels(*size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", [name for name in IMAGE_ARCHITECTURES if name != "beit"])
def test_the_map_is_that_of_the_patches_alone(architecture):
    """A change in one patch alone moves its place of the first layer's input most, on an oblong grid too."""
    sites = backbone(architecture).sites
    sizes = (24, 40) if architecture in ("dinov2", "dinov2-gated", "dinov2-registers") else (32, 32)
    x = pixels(*sizes)
    states, grid = patch_states(sites, [len(sites.layers) - 1], x)
    assert grid == (sizes[0] // 8, sizes[1] // 8) and states.shape == (2, grid[0] * grid[1], sites.hidden)
    every = sites.base(pixel_values=x).last_hidden_state
    assert every.shape[1] == sites.image.count(*sizes)
    assert torch.equal(states, every[:, sites.image.special :][:, : grid[0] * grid[1]])
    assert torch.equal(as_map(states, grid)[0, :, 1, 2], states[0, grid[1] + 2])


def test_several_layers_are_joined_the_lower_ones_normed():
    sites = backbone("dinov2").sites
    x = pixels(16, 24)
    states, _ = patch_states(sites, [0, 1], x)
    with torch.no_grad():
        hidden = sites.base(pixel_values=x, output_hidden_states=True).hidden_states
    expected = F.layer_norm(hidden[1][:, 1:], (sites.hidden,))
    torch.testing.assert_close(states[..., : sites.hidden], expected)
    assert torch.equal(states[..., sites.hidden :], patch_states(sites, [1], x)[0])


@pytest.mark.parametrize("kind", DENSE_HEADS)
@pytest.mark.parametrize(("size", "layers"), [((32, 32), 1), ((24, 40), 2)])
def test_logits_lie_on_the_grid_or_four_times_as_fine(kind, size, layers):
    headed = add_dense_head(backbone("dinov2"), kind, 3, layers)
    headed.model.eval()
    logits = headed.model(pixel_values=pixels(*size)).logits
    finer = 1 if kind == "linear" else 4
    outputs = 7 if kind == "center_points" else 3
    assert logits.shape == (2, outputs, finer * size[0] // 8, finer * size[1] // 8)
    assert set(headed.head) == {name for name, p in headed.model.named_parameters() if p.requires_grad}
    headed.model.train()
    headed.model(pixel_values=pixels(*size)).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in headed.head.values())
    assert all(p.grad is None for p in headed.model.encoder.parameters())


@pytest.mark.parametrize("kind", DENSE_HEADS)
@pytest.mark.parametrize("layers", [1, 2])
def test_an_adapter_before_the_head_is_as_wide_as_what_the_head_reads(kind, layers):
    headed = add_dense_head(backbone("dinov2"), kind, 3, layers)
    method = build(AdapterConfig(bottleneck=4, position="output", train_layer_norm=False), headed.sites)
    check_method(method, headed, None)
    assert sum(p.numel() for p in method.parameters()) == 2 * 4 * 32 * layers + 4 + 32 * layers


@pytest.mark.parametrize("kind", DENSE_HEADS)
@pytest.mark.parametrize("size", [(32, 32), (8, 8)])
def test_a_batch_of_one_picture_trains(kind, size):
    headed = add_dense_head(backbone("dinov2"), kind, 3, 1)
    headed.model.train()
    (headed.model(pixel_values=pixels(*size)[:1]).logits - 1).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in headed.head.values())


def test_the_linear_head_is_batch_norm_and_one_map_a_patch():
    headed = add_dense_head(backbone("dinov2"), "linear", 5, layers=2)
    assert {name: p.shape for name, p in headed.head.items()} == {
        "head.norm.weight": (64,),
        "head.norm.bias": (64,),
        "head.classifier.weight": (5, 64, 1, 1),
        "head.classifier.bias": (5,),
    }
    assert set(headed.statistics) == {f"head.norm.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}


def test_statistics_are_gathered_where_the_head_has_been_moved_to():
    headed = add_dense_head(backbone("dinov2"), "linear", 5)
    headed.model.double().train()  # as another device does, another type puts new buffers in the place of the old
    headed.model(pixel_values=pixels(32, 32).double())
    assert headed.statistics["head.norm.running_mean"].abs().sum() > 0


def test_a_head_counts_the_same_without_weights():
    numbers = IMAGE_ARCHITECTURES["dinov2"]
    blank = blank_backbone({"model_type": numbers[0], **numbers[1]})
    for kind in DENSE_HEADS:
        counted = sum(p.numel() for p in add_dense_head(blank, kind, 4).head.values())
        assert counted == sum(p.numel() for p in add_dense_head(backbone("dinov2"), kind, 4).head.values())


def test_a_head_reads_the_pyramid_that_a_method_brings():
    headed = add_dense_head(backbone("dinov2"), "center_points", 2, method_makes_pyramid=True)
    maps = [torch.randn(2, 32, side, side) for side in (16, 8, 4, 2)]
    from peftbench.backbones.attachments import Attachment

    attachment = Attachment(None, pyramid=lambda: maps)
    headed.sites.attachments.add(attachment)
    headed.model.eval()
    assert headed.model(pixel_values=pixels(32, 32)).logits.shape == (2, 6, 16, 16)
    headed.sites.attachments.remove(attachment)


def test_what_does_not_fit_is_refused_in_a_line():
    headed = add_dense_head(backbone("dinov2"), "linear", 2)
    with pytest.raises(UserError, match="multiple of 8"):
        headed.model(pixel_values=pixels(30, 32))
    text = backbone("bert")
    with pytest.raises(UserError, match="choose a vision model"):
        add_dense_head(text, "linear", 2).model(pixel_values=pixels(32, 32))
    assert isinstance(headed.model, nn.Module)


def test_the_coarsest_map_of_an_odd_side_is_as_a_method_makes_it():
    shapes = [tuple(each.shape[-2:]) for each in ResizedPyramid(4)(torch.randn(1, 4, 1, 5))]
    assert shapes == [(4, 20), *Grids(1, 5).shapes]

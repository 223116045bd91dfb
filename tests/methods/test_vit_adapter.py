"""ViT-Adapter on every architecture of images: where it starts, what trains, what it gives back, what it refuses."""

from dataclasses import replace

import pytest
import torch
from tiny import IMAGE_ARCHITECTURES, tiny_inputs, tiny_model
from transformers import Dinov2ForImageClassification

from peftbench.backbones.dense_heads import DENSE_HEADS, add_dense_head
from peftbench.backbones.economy.checkpointing import checkpointed
from peftbench.backbones.load import Backbone, blank_backbone
from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.deformable_attention import read_samples, read_sums
from peftbench.methods.guard import check_method
from peftbench.methods.interaction import blocks
from peftbench.methods.lora import LoraConfig
from peftbench.methods.vit_adapter import VitAdapter, VitAdapterConfig

SMALL = VitAdapterConfig(interactions=2, heads=4, prior_width=8, drop_path=0.0)
FROZEN = replace(SMALL, train_backbone=False)


def _shake(method) -> None:
    added = set(method.parameters()) - set(method.replaced.parameters())
    with torch.no_grad():
        for parameter in added:
            parameter.add_(torch.randn_like(parameter) * 0.1)


# YOLOS has tokens behind its patches
ARCHITECTURES = [name for name in IMAGE_ARCHITECTURES if name != "yolos"]


def _on(architecture: str, config: VitAdapterConfig = SMALL):
    model = tiny_model(architecture)
    sites = find_sites(model)
    return model, sites, build(config, sites)


def _maps(model, method, inputs) -> list[torch.Tensor]:
    model(**inputs)
    return list(method.pyramid())


@pytest.mark.parametrize("train_backbone", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_on_every_architecture(architecture, train_backbone):
    config = replace(SMALL, train_backbone=train_backbone)
    model, sites, method = _on(architecture, config)
    inputs = tiny_inputs(architecture)
    before, weights = model(**inputs).logits, {n: p.clone() for n, p in model.state_dict().items()}
    assert sum(p.numel() for p in method.parameters()) == method.count(config, sites)
    _shake(method)
    with method.on(sites):
        maps = _maps(model, method, inputs)
        rows, columns = sites.image.grid(*inputs["pixel_values"].shape[-2:])
        assert [each.shape[-2:] for each in maps] == [
            (4 * rows, 4 * columns),
            (2 * rows, 2 * columns),
            (rows, columns),
            (rows // 2, columns // 2),
        ]
        sum(each.square().sum() for each in maps).backward()
        without = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
        # a query's bias moves no softmax, and a key's moves all of one alike
        assert not [n for n in without if "k_proj/bias" not in n]
    assert torch.equal(model(**inputs).logits, before)
    assert all(torch.equal(p, weights[n]) for n, p in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_vit_starts_bit_for_bit_as_it_is(architecture):
    model, sites, method = _on(architecture, FROZEN)
    inputs = tiny_inputs(architecture)
    bare = sites.base(**inputs).last_hidden_state
    with method.on(sites):
        assert torch.equal(sites.base(**inputs).last_hidden_state, bare)


def test_as_published_the_patches_start_as_those_of_a_vit_without_its_class_token():
    model, sites, method = _on("vit")
    inputs = tiny_inputs("vit")
    with sites.layers[0].register_forward_pre_hook(lambda _, args: (args[0][:, 1:], *args[1:])):
        bare = sites.base(**inputs).last_hidden_state
    with method.on(sites):
        assert torch.equal(sites.base(**inputs).last_hidden_state, bare)


@pytest.mark.parametrize(
    ("width", "heads", "added"), [(192, 3, 2_438_192), (384, 6, 5_830_160), (768, 12, 13_680_608)], ids="TSB"
)
def test_published_sizes_from_the_numbers_alone(width, heads, added):
    architecture = {"model_type": "vit", "hidden_size": width, "intermediate_size": 4 * width}
    sites = blank_backbone({**architecture, "num_attention_heads": heads}).sites
    frozen, trained = VitAdapterConfig(train_backbone=False), VitAdapterConfig()
    for config in (frozen, trained):
        with torch.device("meta"):
            method = build(config, sites)
        assert sum(p.numel() for p in method.parameters()) == method.count(config, sites)
    assert method.count(frozen, sites) == added
    unread = 2 * width + width  # the final norm and the class token
    whole = sum(p.numel() for _, p in sites.backbone_parameters())
    assert method.count(trained, sites) == added + whole - unread


def test_a_class_token_that_positions_are_relative_to_is_kept():
    *_, method = _on("beit", SMALL)
    assert "replaced.embeddings/cls_token" in dict(method.named_parameters())
    with pytest.raises(UserError, match="method.special_tokens=drop: BeitModel has biases for them"):
        _on("beit", replace(SMALL, special_tokens="drop"))


def test_gradients_with_checkpointing_are_the_same():
    model, sites, method = _on("dinov2")
    _shake(method)
    found = []
    for again in (False, True):
        method.zero_grad()
        with method.on(sites):
            model.train()
            if again:
                with checkpointed(sites):
                    sum(each.square().sum() for each in _maps(model, method, tiny_inputs("dinov2"))).backward()
            else:
                sum(each.square().sum() for each in _maps(model, method, tiny_inputs("dinov2"))).backward()
        found.append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-4)


def test_bf16_is_near_fp32():
    model, sites, method = _on("dinov2", FROZEN)
    _shake(method)
    with method.on(sites), torch.no_grad():
        exact = _maps(model, method, tiny_inputs("dinov2"))
        with torch.autocast("cpu", torch.bfloat16):
            rounded = _maps(model, method, tiny_inputs("dinov2"))
    for each, near in zip(exact, rounded, strict=True):
        assert (near.float() - each).norm() < 0.03 * each.norm()


@pytest.mark.parametrize(
    ("layers", "interactions", "expected"),
    [
        (12, 4, [(0, 2), (3, 5), (6, 8), (9, 11)]),
        (4, 4, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (7, 3, [(0, 2), (3, 4), (5, 6)]),
        (24, 1, [(0, 23)]),
    ],
)
def test_blocks(layers, interactions, expected):
    assert blocks(layers, interactions) == expected


def test_batch_norms_follow_the_backbone_s_mode():
    """A method in training leaves its running means alone while the model is scored, and gathers them in training."""
    model, sites, method = _on("vit", FROZEN)
    norm = method.output.norms[0]
    before = norm.running_mean.clone()
    with method.on(sites), torch.no_grad():
        model(**tiny_inputs("vit"))
        assert torch.equal(norm.running_mean, before)
        model.train()
        model(**tiny_inputs("vit"))
    assert not torch.equal(norm.running_mean, before)


def test_the_guard_leaves_running_means_as_they_were():
    encoder = tiny_model("dinov2").base_model
    backbone = Backbone(encoder, Dinov2ForImageClassification, find_sites(encoder))
    heads = [add_dense_head(backbone, kind, 3, method_makes_pyramid=True) for kind in DENSE_HEADS]
    for whole in [*heads, VitAdapter.put_head(FROZEN, backbone, ["ants", "bees"], 1)]:
        method = build(FROZEN, whole.sites)
        before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
        assert not check_method(method, whole, None)
        assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())


def test_the_prior_sees_sixteen_pixels_a_patch():
    """Patches of 8 pixels: the pyramid has 4 cells a patch at its finest, whatever the patch."""
    model, sites, method = _on("vit", FROZEN)
    seen = []
    method.prior.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    with method.on(sites):
        maps = _maps(model, method, {"pixel_values": torch.randn(1, 3, 32, 32)})
    assert seen == [(1, 3, 64, 64)]
    assert maps[0].shape == (1, 32, 16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "boxes"}, "method.form=boxes is unknown"),
        ({"special_tokens": "all"}, "method.special_tokens=all is unknown"),
        ({"interactions": 0}, "method.interactions=0 must be 1 or more"),
        ({"form": "segmentation", "interactions": 3}, "method.interactions=3 must be 4, or take form=detection"),
        ({"points": 0}, "method.points=0 must be 1 or more"),
        ({"ratio": 0.0}, "method.ratio=0 must be above 0"),
        ({"drop_path": 1.0}, "method.drop_path=1 must be 0 or more and below 1"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        VitAdapterConfig(**settings)


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("bert", SMALL, "method=vit_adapter is for images"),
        ("vit", VitAdapterConfig(), "method.interactions=4 needs as many layers, and the model has 2"),
        ("vit", replace(SMALL, heads=5), "method.heads=5 must divide the values' width 32"),
    ],
)
def test_models_that_do_not_fit(architecture, config, message):
    sites = find_sites(tiny_model(architecture))
    for make in (build, lambda config, sites: VitAdapter.count(config, sites)):
        with pytest.raises(UserError, match=message):
            make(config, sites)


@pytest.mark.parametrize("form", ["detection", "segmentation"])
def test_an_odd_grid_has_a_coarsest_map_of_half_a_cell_more(form):
    model = tiny_model("dinov2", num_hidden_layers=4)
    sites = find_sites(model)
    method = build(replace(FROZEN, form=form, interactions=4), sites)
    with method.on(sites):
        maps = _maps(model, method, {"pixel_values": torch.randn(2, 3, 40, 24)})
    assert [each.shape[-2:] for each in maps] == [(20, 12), (10, 6), (5, 3), (3, 2)]


def test_tokens_that_another_method_puts_in_are_refused():
    model, sites, method = _on("vit", FROZEN)
    more = sites.at("embeddings")[0].replace(lambda x: torch.cat([x[:, :1], x[:, :2], x[:, 1:]], 1))
    with method.on(sites), pytest.raises(UserError, match="needs the patches' grid"):
        model(**tiny_inputs("vit"))
    more.remove()


def test_beside_lora():
    """What acts inside the layers acts under the pyramid too, and the one comes off without the other."""
    model, sites, method = _on("vit", FROZEN)
    lora = build(LoraConfig(rank=2), sites)
    _shake(lora)
    with method.on(sites):
        alone = _maps(model, method, tiny_inputs("vit"))
        with lora.on(sites):
            both = _maps(model, method, tiny_inputs("vit"))
        assert not torch.allclose(both[0], alone[0], atol=1e-3)
        assert all(torch.equal(a, b) for a, b in zip(_maps(model, method, tiny_inputs("vit")), alone, strict=True))


def test_tokens_behind_the_patches_are_refused():
    model, sites, method = _on("yolos", FROZEN)
    with method.on(sites), pytest.raises(UserError, match="needs the patches' grid .* or the model itself"):
        model(**tiny_inputs("yolos"))


def test_cells_summed_as_they_are_read_are_those_that_transformers_samples():
    generator = torch.Generator().manual_seed(0)
    shapes, heads, points = [(6, 4), (3, 2)], 2, 3
    value = torch.randn(2, 30, heads, 5, generator=generator, dtype=torch.float64)
    locations = (
        torch.rand(2, 7, heads, 2, points, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    )  # also beyond
    locations[0, 0, 0, 0] = torch.tensor([[0.0, 1.0], [0.125, 0.25], [1e9, -1e9]])  # an edge, a cell's centre, far away
    weights = torch.rand(2, 7, heads, 2, points, generator=generator, dtype=torch.float64)
    given = [each.requires_grad_() for each in (value, locations, weights)]
    found = []
    for read in (read_samples, read_sums):
        out = read(value, shapes, locations, weights)
        found.append([out, *torch.autograd.grad(out.square().sum(), given)])
    for sampled, summed in zip(*found, strict=True):
        torch.testing.assert_close(summed, sampled, rtol=1e-10, atol=1e-10)


def test_places_that_are_no_numbers_are_read_as_none():
    value, weights = torch.ones(1, 4, 1, 3), torch.ones(1, 1, 1, 1, 1)
    for odd in (float("nan"), float("inf")):
        assert read_sums(value, [(2, 2)], torch.full((1, 1, 1, 1, 1, 2), odd), weights).isnan().all()

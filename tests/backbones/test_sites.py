"""Site names mean the same place in every architecture; an unknown one is told what it lacks."""

import inspect

import pytest
import torch
from tiny import ARCHITECTURES, EVERY_ARCHITECTURE, IMAGE_ARCHITECTURES, tiny_inputs, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModel, GPT2Config, GPT2Model

from peftbench.backbones.image_tokens import ImageTokens
from peftbench.backbones.recognise import LINEAR_SITES, NORM_SITES, RESIDUAL_SITES
from peftbench.backbones.sites import find_sites
from peftbench.errors import UserError


def _record(module, store, key):
    def hook(module, args, output):
        store.setdefault(key, (args, output))  # DeBERTa calls its projections a second time

    return module.register_forward_hook(hook)


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
def test_sites_are_where_they_say(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    names = (*LINEAR_SITES, *RESIDUAL_SITES, *NORM_SITES)
    outside = {"patches"} if architecture in IMAGE_ARCHITECTURES else set()
    if sites.layout.pre_norm and architecture != "clip":
        outside.add("final.norm")
    assert set(sites.names) == {*names, *outside, "embeddings", "final"}
    seen: dict = {}
    handles = [_record(sites.at(name)[1].module, seen, name) for name in names]
    with torch.no_grad():
        hidden = sites.base(**tiny_inputs(architecture), output_hidden_states=True).hidden_states[1]
        if architecture == "yolos":  # which adds positions between its layers too
            hidden = hidden + sites.base.encoder.interpolation((32, 32))[0]
    for handle in handles:
        handle.remove()
    for name in LINEAR_SITES:
        assert isinstance(sites.at(name)[1].module, nn.Linear)
    for name in NORM_SITES:
        assert isinstance(sites.at(name)[1].module, nn.LayerNorm)
    up = {"modernbert": 96, "dinov2": 64, "dinov2-registers": 64}.get(architecture, 48)
    assert (sites.at("ffn.up")[1].out_features, sites.hidden, sites.key_width) == (up, 32, 32)
    attended, normed = seen["attention.residual"][1], seen["attention.norm"]
    if architecture in ("beit", "data2vec-vision"):  # the factors of its LayerScale are no module: the site lies inside
        attended = attended * sites.layers[1].lambda_1
    if sites.layout.pre_norm:  # what is normed is what entered the layer, then that and the sub-layer's output
        torch.testing.assert_close(normed[0][0], hidden)
        torch.testing.assert_close(seen["attention.query"][0][0], normed[1])
        torch.testing.assert_close(seen["ffn.norm"][0][0] - attended, hidden)
        torch.testing.assert_close(seen["ffn.up"][0][0], seen["ffn.norm"][1])
    else:  # what enters the norm is the sub-layer's output plus what entered the layer, and the FFN reads the norm
        torch.testing.assert_close(normed[0][0] - attended, hidden)
        torch.testing.assert_close(seen["attention.query"][0][0], hidden)
        torch.testing.assert_close(seen["ffn.up"][0][0], normed[1])
        torch.testing.assert_close(seen["ffn.norm"][0][0] - seen["ffn.residual"][1], normed[1])
    down = seen["ffn.down"][1]
    if "layer_scale" in sites.layout.sites["ffn.residual"]:
        down = sites.layers[1].layer_scale2(down)
    torch.testing.assert_close(seen["ffn.residual"][1], down)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_position_limit_is_the_longest_row_that_runs(architecture):
    model = tiny_model(architecture)
    longest = find_sites(model).positions
    with torch.no_grad():
        model(input_ids=torch.full((1, longest), 7))
        if architecture not in ("deberta-v2", "modernbert"):  # their positions are relative: the limit is nominal
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, longest + 1), 7))


def test_unknown_site_names_the_nearest():
    with pytest.raises(UserError, match="no site 'attention.quary'.*attention.query"):
        find_sites(tiny_model("bert")).at("attention.quary")


def test_unknown_architecture_lists_its_modules_and_what_an_entry_needs():
    model = GPT2Model(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16))
    with pytest.raises(UserError) as caught:
        find_sites(model)
    line = str(caught.value)
    assert "\n" not in line and "attn.c_attn" in line and "mlp.c_fc" in line
    assert all(site in line for site in (*LINEAR_SITES, *RESIDUAL_SITES, *NORM_SITES))


def test_a_model_without_a_head_has_no_final_site():
    assert "final" not in find_sites(tiny_model("bert").base_model).names


SPECIAL_TOKENS = {"deit": 2, "dinov2-registers": 4, "siglip": 0, "ijepa": 0}


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_tokens_of_an_image(architecture):
    """As many as enter the first layer, for an image of the model's size and of another one."""
    model = tiny_model(architecture)
    sites = find_sites(model)
    entered = []
    sites.at("embeddings")[0].watch(entered.append)
    with torch.no_grad():
        hidden = sites.base(**tiny_inputs(architecture), output_hidden_states=True).hidden_states[0]
        takes = "interpolate_pos_encoding" in inspect.signature(sites.base.forward).parameters
        arguments = {"interpolate_pos_encoding": True} if takes else {}
        model(pixel_values=torch.randn(1, 3, 40, 24), **arguments)
    assert torch.equal(entered[0], hidden)
    special = SPECIAL_TOKENS.get(architecture, 1)
    assert (sites.image.special, sites.image.grid(40, 24)) == (special, (5, 3))
    behind = 3 if architecture == "yolos" else 0
    assert sites.positions == sites.image.count(32, 32) == entered[0].shape[1] == special + 16 + behind
    assert sites.image.count(40, 24) == entered[1].shape[1]


def test_an_image_that_the_patch_does_not_divide():
    with pytest.raises(UserError, match="40 x 33 pixels do not fall into the model's patches of 8 x 8"):
        find_sites(tiny_model("vit")).image.grid(40, 33)
    with pytest.raises(UserError, match="patches of 12 x 16: choose multiples of 12 and of 16$"):
        ImageTokens(1, (12, 16), (48, 48)).grid(32, 48)


@pytest.mark.parametrize("gated", [False, True])
def test_sites_of_dinov3(gated):
    """Its base model's name means the layers alone, without embeddings."""
    numbers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = AutoConfig.for_model("dinov3_vit", **numbers, image_size=32, patch_size=8, use_gated_mlp=gated)
    config.num_register_tokens = 3
    model = AutoModel.from_config(config).eval()
    sites = find_sites(model)
    entered = []
    sites.at("embeddings")[0].watch(entered.append)
    with torch.no_grad():
        hidden = model(torch.randn(2, 3, 24, 40)).last_hidden_state
    assert (sites.base, sites.image.special, sites.image.count(24, 40)) == (model, 4, 19)
    assert entered[0].shape == hidden.shape == (2, 19, 32)
    assert sites.at("ffn.down")[0].in_features == 48


def test_the_vision_tower_of_a_pair_stands_alone():
    model = AutoModel.from_config(tiny_model("clip").config)
    sites = find_sites(model)
    assert sites.base is sites.model is model.vision_model
    assert not sites.head_modules


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_width_of_what_enters_the_head(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    entered = []
    sites.at("final")[0].watch(entered.append)
    model(**tiny_inputs(architecture))
    assert (
        entered[0].shape[-1] == sites.final_width == (64 if "dinov2" in architecture or architecture == "yolos" else 32)
    )

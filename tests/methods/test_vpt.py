"""Prompts among an image's patches: where they stand, who reads them, and what they do not go along with."""

import math

import pytest
import torch
from tiny import tiny_inputs, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.convpass import ConvpassConfig
from peftbench.methods.vpt import VptConfig

LENGTH = 3


@torch.no_grad()
def by_hand(model, pixels, prompts):
    """DINOv2 with registers written out: deep prompts behind its four special tokens, none of them in the mean."""
    base = model.base_model
    x = base.embeddings(pixels)
    special, patches = x[:, :4], x[:, 4:]
    for layer, given in zip(base.encoder.layer, prompts, strict=True):
        x = torch.cat([special, given.expand(len(pixels), -1, -1), patches], dim=1)
        x = layer(x)
        special, patches = x[:, :4], x[:, 4 + LENGTH :]
    normed = base.layernorm(torch.cat([special, patches], dim=1))
    return model.classifier(torch.cat([normed[:, 0], normed[:, 4:].mean(1)], dim=1))


def test_a_head_s_mean_is_one_of_patches():
    model = tiny_model("dinov2-registers")
    sites = find_sites(model)
    method = build(VptConfig(length=LENGTH), sites)
    pixels = torch.randn(2, 3, 24, 40)
    with method.on(sites), torch.no_grad():
        found = model(pixel_values=pixels).logits
    torch.testing.assert_close(found, by_hand(model, pixels, list(method.prompts)), rtol=1e-4, atol=1e-5)


def test_an_encoder_without_a_head_returns_them():
    base = tiny_model("vit").base_model
    sites = find_sites(base)
    with build(VptConfig(length=LENGTH), sites).on(sites), torch.no_grad():
        assert base(**tiny_inputs("vit")).last_hidden_state.shape[1] == 17 + LENGTH


def test_they_start_within_the_original_s_bounds_and_drop_in_training():
    model = tiny_model("vit")
    sites = find_sites(model)
    method = build(VptConfig(length=100, dropout=0.5), sites)
    bound = math.sqrt(6 / (3 * 64 + 32))
    largest = method.prompts[0].abs().max()
    assert 0.9 * bound < largest <= bound
    same = {"pixel_values": tiny_inputs("vit")["pixel_values"][:1].expand(2, -1, -1, -1)}
    with method.on(sites), torch.no_grad():
        logits = model(**same).logits
        torch.testing.assert_close(logits[0], logits[1])
        logits = model.train()(**same).logits
    assert not torch.allclose(logits[0], logits[1]), "each image draws its own"
    assert (VptConfig().dropout, VptConfig(deep=False).dropout) == (0.1, 0)


def test_two_methods_with_prompts_do_not_go_together():
    model = tiny_model("vit")
    sites = find_sites(model)
    first, second = (build(VptConfig(length=2), sites) for _ in range(2))
    with first.on(sites), pytest.raises(UserError, match="prompts among this backbone's patches already"):
        second.attach(sites)
    with second.on(sites), torch.no_grad():
        model(**tiny_inputs("vit"))


def test_a_method_that_needs_the_grid_says_so():
    model = tiny_model("vit")
    sites = find_sites(model)
    prompts, convpass = build(VptConfig(length=2), sites), build(ConvpassConfig(), sites)
    with (
        prompts.on(sites),
        convpass.on(sites),
        pytest.raises(UserError, match="needs the grid of an image's patches, 4 x 4"),
    ):
        model(**tiny_inputs("vit"))


@pytest.mark.parametrize(("setting", "value"), [("length", 0), ("projection", 0), ("dropout", 1.0)])
def test_settings_that_make_no_sense(setting, value):
    with pytest.raises(UserError, match=f"method.{setting}="):
        VptConfig(**{setting: value})

"""Site names mean the same place in every architecture; an unknown one is told what it lacks."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from torch import nn
from transformers import GPT2Config, GPT2Model

from peftbench.backbones.sites import LINEAR_SITES, NORM_SITES, RESIDUAL_SITES, find_sites
from peftbench.errors import UserError


def _record(module, store, key):
    def hook(module, args, output):
        store.setdefault(key, (args, output))  # DeBERTa calls its projections a second time

    return module.register_forward_hook(hook)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sites_are_where_they_say(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    names = (*LINEAR_SITES, *RESIDUAL_SITES, *NORM_SITES)
    assert set(sites.names) == {*names, "embeddings", "final"}
    seen: dict = {}
    handles = [_record(sites.at(name)[1].module, seen, name) for name in names]
    with torch.no_grad():
        hidden = model(**tiny_batch(), output_hidden_states=True).hidden_states[1]
    for handle in handles:
        handle.remove()
    for name in LINEAR_SITES:
        assert isinstance(sites.at(name)[1].module, nn.Linear)
    for name in NORM_SITES:
        assert isinstance(sites.at(name)[1].module, nn.LayerNorm)
    up = 96 if architecture == "modernbert" else 48
    assert (sites.at("ffn.up")[1].out_features, sites.hidden, sites.key_width) == (up, 32, 32)
    attended, normed = seen["attention.residual"][1], seen["attention.norm"]
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
    torch.testing.assert_close(seen["ffn.residual"][1], seen["ffn.down"][1])


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

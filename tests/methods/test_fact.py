"""FacT against updates put together block by block and added to the weights."""

import pytest
import torch
from tiny import tiny_inputs, tiny_model

from peftbench.backbones.recognise import LINEAR_SITES
from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.fact import FactConfig


@torch.no_grad()
@pytest.mark.parametrize("form", ["tt", "tk"])
@pytest.mark.parametrize("inner", [48, 128])  # one and a half times the width: the last block is cut
def test_by_hand(form, inner):
    model, plain = (tiny_model("vit", intermediate_size=inner) for _ in range(2))
    sites = find_sites(model)
    method = build(FactConfig(rank=4, form=form, scale=0.5), sites)
    for parameter in method.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.3)
    block = 0
    for name in LINEAR_SITES:
        for site in find_sites(plain).at(name):
            outputs, inputs = site.weight.shape
            for top in range(0, outputs, 32):
                for left in range(0, inputs, 32):
                    if form == "tt":
                        middle = method.middles[block]
                    else:
                        middle = sum(method.numbers[block, k] * method.core[:, :, k] for k in range(4))
                    update = method.v @ middle @ method.u
                    height, width = min(32, outputs - top), min(32, inputs - left)
                    site.weight[top : top + 32, left : left + 32] += 0.5 * update[:height, :width]
                    block += 1
    with method.on(sites):
        found = model(**tiny_inputs("vit")).logits
    torch.testing.assert_close(found, plain(**tiny_inputs("vit")).logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", ["tt", "tk"])
def test_it_starts_as_nothing(form):
    model = tiny_model("vit")
    sites = find_sites(model)
    before = model(**tiny_inputs("vit")).logits
    with build(FactConfig(form=form), sites).on(sites):
        torch.testing.assert_close(model(**tiny_inputs("vit")).logits, before)


def test_the_middles_of_a_map_start_as_one_linear_map():
    sites = find_sites(tiny_model("vit", intermediate_size=128))
    middles = build(FactConfig(rank=16), sites).middles
    down = 4 * len(list(sites.at("ffn.down")))  # the last of LINEAR_SITES: four blocks beside each other
    assert 0.24 < middles[:-down].abs().max() <= 0.25 and 0.12 < middles[-down:].abs().max() <= 0.125


@pytest.mark.parametrize(("setting", "value"), [("rank", 0), ("form", "cp"), ("scale", 0.0), ("dropout", 1.0)])
def test_settings_that_make_no_sense(setting, value):
    with pytest.raises(UserError, match=f"method.{setting}="):
        FactConfig(**{setting: value})


def test_a_rank_beyond_the_width():
    with pytest.raises(UserError, match="method.rank=33 is larger than the model's width 32"):
        build(FactConfig(rank=33), find_sites(tiny_model("vit")))

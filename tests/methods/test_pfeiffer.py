"""The Pfeiffer adapter's start, and what it is where norms stand before the sub-layers."""

import torch
from tiny import tiny_batch, tiny_model

from peftbench.methods import build, find_sites
from peftbench.methods.pfeiffer import PfeifferConfig


def test_the_norm_acts_twice_even_where_the_adapter_gives_nothing():
    model = tiny_model("bert")
    method = build(PfeifferConfig(bottleneck=4, layers="1"), find_sites(model))
    with torch.no_grad():
        method.bottlenecks[0].up_weight.zero_()
        before = model(**tiny_batch(), output_hidden_states=True).hidden_states
        with method.on(find_sites(model)):
            found = model(**tiny_batch(), output_hidden_states=True).hidden_states
    # the norm of a sum does not change when it is given the sum again
    torch.testing.assert_close(found[2], before[2])


def test_weights_start_with_the_library_s_deviation():
    torch.manual_seed(0)
    method = build(PfeifferConfig(bottleneck=32), find_sites(tiny_model("bert")))
    for block in method.bottlenecks:
        assert all(0.017 < weight.std() < 0.023 for weight in (block.down_weight, block.up_weight))
        assert not block.down_bias.any() and not block.up_bias.any()


def test_without_a_norm_behind_the_addition_it_reads_and_adds_to_the_sum():
    model = tiny_model("modernbert")
    sites = find_sites(model)
    method = build(PfeifferConfig(bottleneck=4, layers="1"), sites)
    (block,) = method.bottlenecks
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.3)
        before = model(**tiny_batch(), output_hidden_states=True).hidden_states[2]
        with method.on(sites):
            found = model(**tiny_batch(), output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(found, before + block(before), rtol=1e-4, atol=1e-5)

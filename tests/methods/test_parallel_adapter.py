"""The parallel adapter starts as nothing, and reads what the feed-forward part reads."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.parallel import ParallelConfig


@pytest.mark.parametrize("learn_scale", [True, False])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_the_start_is_the_backbone(architecture, learn_scale):
    model = tiny_model(architecture)
    sites = find_sites(model)
    before = model(**tiny_batch()).logits
    method = build(ParallelConfig(learn_scale=learn_scale), sites)
    assert all(block.down_weight.any() and not block.up_weight.any() for block in method.bottlenecks)
    with method.on(sites):
        assert torch.equal(model(**tiny_batch()).logits, before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_adds_its_share_of_what_the_part_reads(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    method = build(ParallelConfig(bottleneck=4, scale=3, layers="1"), sites)
    (block,) = method.bottlenecks
    read, given = [], []
    sites.at("ffn.up")[1].module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.3)
        # hooks run in the order of their registration: one in front of the method's, one behind it
        sites.at("ffn.residual")[1].watch(given.append)
        with method.on(sites):
            sites.at("ffn.residual")[1].watch(given.append)
            model(**tiny_batch())
        torch.testing.assert_close(given[1], given[0] + 3 * block(read[0]))


def test_a_scale_of_0_is_refused():
    with pytest.raises(UserError, match="method.scale=0 leaves the adapter without effect"):
        ParallelConfig(scale=0)

"""Settings of the bottleneck adapter at their limits."""

import torch
from tiny import tiny_batch, tiny_model

from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig


def test_init_std_0_starts_as_the_identity():
    model = tiny_model("bert")
    sites = find_sites(model)
    before = model(**tiny_batch()).logits
    with build(AdapterConfig(bottleneck=4, init_std=0), sites).on(sites):
        assert torch.equal(model(**tiny_batch()).logits, before)

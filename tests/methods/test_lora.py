"""DoRA divides by the norm of each row of a weight, which a pruned model may have set to zero."""

import torch
from tiny import tiny_batch, tiny_model

from peftbench.methods import build, find_sites
from peftbench.methods.lora import LoraConfig


def test_rows_of_zeros_start_as_the_backbone_and_train():
    model = tiny_model("bert")
    sites = find_sites(model)
    with torch.no_grad():
        sites.at("attention.query")[0].module.weight[0] = 0
        before = model(**tiny_batch()).logits
    method = build(LoraConfig(rank=2, dora=True), sites)
    with method.on(sites):
        logits = model(**tiny_batch()).logits
        torch.testing.assert_close(logits, before)
        logits.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in method.parameters())

"""IA³ starts as the backbone, and merged it gives what it gives beside the weights."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.ia3 import Ia3Config


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_start_and_merged(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    weights = {name: p.clone() for name, p in model.state_dict().items()}
    method = build(Ia3Config(targets=["all"]), sites)
    with torch.no_grad():
        before = model(**tiny_batch()).logits
        with method.on(sites):
            assert torch.equal(model(**tiny_batch()).logits, before), "it starts as the backbone"
            for factors in method.parameters():
                factors.add_(torch.randn_like(factors) * 0.3)
            beside = model(**tiny_batch()).logits
            method.merge()
            merged = model(**tiny_batch()).logits
            method.unmerge()
            assert torch.equal(model(**tiny_batch()).logits, beside)
    assert not torch.allclose(beside, before, atol=1e-3)
    torch.testing.assert_close(merged, beside, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(p, weights[name]) for name, p in model.state_dict().items())


def test_a_target_that_is_no_linear_map():
    with pytest.raises(UserError, match="method.targets: no linear site 'ffn'"):
        Ia3Config(targets=["key", "ffn"])

"""Mix-and-match is a prefix and a parallel adapter, stored without the prefix's network."""

import pytest
import torch
from tiny import tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.mam import MamConfig


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "modernbert"])  # two ways to a prefix, norms before
def test_it_is_both_methods_together_and_stored_without_the_network(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    method = build(MamConfig(length=3, mid_dim=6), sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        with method.on(sites):
            together = model(**tiny_batch()).logits
            assert method.keeps_first_token == (architecture != "mpnet") and method.extra_positions == 3
        with method.prefix.on(sites), method.parallel.on(sites):
            assert torch.equal(model(**tiny_batch()).logits, together)
        config, tensors = method.exported()
        kept = sum(tensor.numel() for tensor in tensors.values())
        assert kept == method.count(config, sites) < method.count(method.config, sites)
        stored = build(config, sites)
        stored.load_state_dict(tensors)
        with stored.on(sites):
            torch.testing.assert_close(model(**tiny_batch()).logits, together)


def test_layers_without_an_adapter_go_bare_too_for_they_have_a_prefix():
    model = tiny_model("bert", num_hidden_layers=4)
    sites = find_sites(model)
    method = build(MamConfig(length=3, mid_dim=6, layers="2-", drop="robust"), sites)
    assert method.first_layer(sites) == 0 and list(method.droppable_layers(sites)) == [0, 1, 2, 3]
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        bare = model.base_model(**tiny_batch(), output_hidden_states=True).hidden_states
        with method.on(sites):
            method.drop([0, 1, 2])
            found = model.base_model(**tiny_batch(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(found[3], bare[3])
    assert not torch.allclose(found[4], bare[4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "method.length=0 must be 1 or more"),
        ({"mid_dim": 0}, "method.mid_dim=0 must be 1 or more"),
        ({"scale": 0}, "method.scale=0 leaves the adapter without effect"),
    ],
)
def test_a_mistake_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        MamConfig(**settings)

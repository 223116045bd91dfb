"""The cheap dropout is a dropout: rate, scale, gradient, off in evaluation; and it leaves no trace."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model

from peftbench.backbones.cpu import cheap_dropout, dropout
from peftbench.methods import build, find_sites
from peftbench.methods.prefix import PrefixConfig


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rate_scale_and_gradient(p):
    torch.manual_seed(0)
    x = torch.full((1000, 501), 2.0, requires_grad=True)
    y = dropout(x, p, training=True)
    kept = y != 0
    share = kept.double().mean().item()
    assert abs(share - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5  # five standard errors
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 2 / (1 - p)), rtol=2e-4, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad != 0, kept)
    torch.testing.assert_close(x.grad[kept], y[kept].detach() / 2)


def test_elements_are_dropped_independently():
    torch.manual_seed(1)
    kept = (dropout(torch.ones(4000, 256), 0.3, training=True) != 0).double()
    centred = kept - kept.mean()
    for lag in (1, 2, 3, 4, 256):  # the four elements of one draw among them
        flat = centred.flatten()
        correlation = (flat[:-lag] * flat[lag:]).mean() / centred.var()
        assert abs(correlation) < 5 / flat.numel() ** 0.5


def test_off_without_training_or_rate():
    x = torch.randn(7)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_comes_and_goes_on_a_model(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    before, implementation = model(**tiny_batch()).logits, model.config._attn_implementation
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    with cheap_dropout(sites):
        torch.testing.assert_close(model(**tiny_batch()).logits, before, rtol=1e-5, atol=1e-5)
        model.train()
        torch.manual_seed(0)
        once = model(**tiny_batch()).logits
        again = model(**tiny_batch()).logits
        torch.manual_seed(0)
        assert not torch.equal(once, again) and torch.equal(model(**tiny_batch()).logits, once)
    model.eval()
    assert torch.equal(model(**tiny_batch()).logits, before)
    assert model.config._attn_implementation == implementation
    assert not any("forward" in vars(module) for module in model.modules())


def test_attention_weights_are_dropped_too():
    """With dropout on the attention weights alone, training still varies; the prefix's weights included."""
    model = tiny_model("bert")
    sites = find_sites(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for attention in sites.self_attention:
        attention.dropout.p = 0.5
    with cheap_dropout(sites), build(PrefixConfig(length=3), sites).on(sites):
        model.train()
        assert not torch.equal(model(**tiny_batch()).logits, model(**tiny_batch()).logits)

"""Compacter's PHM layers, what it starts as, and its factors multiplied out where nothing trains."""

import pytest
import torch
from tiny import tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.compacter import CompacterConfig, phm_weight


def test_a_phm_weight_is_a_sum_of_kronecker_products():
    rule, left, right = torch.randn(3, 3, 3), torch.randn(2, 3, 4, 2), torch.randn(2, 3, 2, 5)
    found = phm_weight(rule, left, right)
    for index in range(2):
        terms = [torch.kron(rule[i], left[index, i] @ right[index, i]) for i in range(3)]
        torch.testing.assert_close(found[index], sum(terms).T)


def test_it_starts_as_almost_the_backbone():
    torch.manual_seed(0)
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(CompacterConfig(), sites)
    assert 0.5e-4 < method.rule.std() < 2e-4
    bound = (2 * 6 / (8 + 1)) ** 0.5  # s of the way down is 8 × 1
    assert 0.9 * bound < method.down.left.abs().max() <= bound
    before = model(**tiny_batch()).logits
    with method.on(sites):
        torch.testing.assert_close(model(**tiny_batch()).logits, before, rtol=1e-3, atol=1e-3)


def test_frozen_factors_are_multiplied_out_once_and_anew_when_they_change(monkeypatch):
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(CompacterConfig(bottleneck=4), sites)
    made = []
    adapters = method.adapters
    monkeypatch.setattr(method, "adapters", lambda: made.append(1) or adapters())

    def answer():
        with torch.inference_mode():
            return model(**tiny_batch()).logits.clone()

    with method.on(sites):
        method.requires_grad_(False)
        first = answer()
        assert torch.equal(answer(), first) and len(made) == 1
        torch.testing.assert_close(model(**tiny_batch()).logits.detach(), first)
        method.load_state_dict({name: tensor + 0.1 for name, tensor in method.state_dict().items()})
        assert not torch.allclose(answer(), first) and len(made) == 2


def test_what_an_optimizer_changed_is_seen_in_the_next_pass():
    """Fused ones, as the trainer's, leave no trace in a tensor's version."""
    model = tiny_model("bert")
    sites = find_sites(model)
    method = build(CompacterConfig(bottleneck=4, train_layer_norm=False), sites)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, fused=True)
    with method.on(sites):
        with torch.inference_mode():
            before = model(**tiny_batch()).logits
        (model(**tiny_batch()).logits ** 2).sum().backward()
        optimizer.step()
        with torch.inference_mode():
            trained = model(**tiny_batch()).logits
        assert not torch.allclose(trained, before)
        torch.testing.assert_close(model(**tiny_batch()).logits.detach(), trained.clone())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bottleneck": 6}, "method.phm_dim=4 must divide the bottleneck, 6, and the model's width, 32"),
        ({"phm_dim": 3}, "method.phm_dim=3 must divide the bottleneck, 24, and the model's width, 32"),
        ({"phm_dim": 0}, "method.phm_dim=0 must be 1 or more"),
        ({"rank": 0}, "method.rank=0 must be 1 or more"),
        ({"position": "every"}, "method.position=every is unknown"),
    ],
)
def test_a_mistake_is_one_line(settings, message):
    with pytest.raises(UserError, match=message):
        build(CompacterConfig(**settings), find_sites(tiny_model("bert")))

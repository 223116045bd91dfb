"""Sites that are parts of a module, weights kept the other way round, and sub-layers as spans."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftbench.backbones.economy.first_token import FirstTokenOnly
from peftbench.backbones.site import Site
from peftbench.methods import build, find_sites
from peftbench.methods.folding import fold_parts
from peftbench.methods.prefix import PrefixConfig

FUSED = [nn.Linear(4, 9), nn.Linear(4, 9, bias=False), Conv1D(9, 4)]


@pytest.mark.parametrize("module", FUSED, ids=["linear", "without bias", "conv1d"])
def test_a_part_of_a_fused_map_is_a_linear_map(module):
    x = torch.randn(2, 5, 4)
    parts = [Site(module, slice(i, i + 3)) for i in (0, 3, 6)]
    outputs = [nn.functional.linear(x, part.weight, part.bias) for part in parts]
    torch.testing.assert_close(torch.cat(outputs, dim=-1), module(x))
    assert [(part.in_features, part.out_features) for part in parts] == [(4, 3)] * 3


@pytest.mark.parametrize("module", FUSED, ids=["linear", "without bias", "conv1d"])
def test_what_acts_on_a_part_folds_into_it(module):
    x = torch.randn(2, 5, 4)
    bare = module(x)
    part = Site(module, slice(3, 6))
    handle = part.replace_output(lambda given, output: 2 * output + given.sum(-1, keepdim=True) + 1)
    beside = module(x)
    handle.remove()
    assert torch.equal(beside[..., :3], bare[..., :3]) and torch.equal(beside[..., 6:], bare[..., 6:])

    def fold(weight, bias):
        return 2 * weight + 1, (0 if bias is None else 2 * bias) + torch.ones(3)

    before = {"weight": module.weight, "bias": module.bias}
    weight, bias = module.weight.detach().clone(), module.bias
    folded = fold_parts([(part, fold)], before)
    assert torch.equal(module.weight, weight) and module.bias is bias, "the module's own stay as they are"
    module._parameters.update(folded)
    try:
        torch.testing.assert_close(module(x), beside)
    finally:
        module._parameters.update(before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["attention", "ffn"])
def test_a_span_sees_what_enters_its_sub_layer_and_changes_what_leaves_it(architecture, name):
    model = tiny_model(architecture)
    sites = find_sites(model)
    seen = []
    with torch.no_grad():
        before = model(**tiny_batch(), output_hidden_states=True)
        span = sites.spans(name)[1]
        handles = span.replace(lambda x, output: seen.append((x, output)) or output + x)
        changed = model(**tiny_batch()).logits
        with build(PrefixConfig(length=3), sites).on(sites):
            model(**tiny_batch())  # more rows inside the attention are none of the span's
        first = FirstTokenOnly(sites)
        model(**tiny_batch())
        first.remove()
        for handle in handles:
            handle.remove()
        assert torch.equal(model(**tiny_batch()).logits, before.logits)
    (x, output), *others = seen
    assert x.shape == output.shape == (3, 12, 32)
    assert all(a.shape == b.shape for a, b in others)
    assert not torch.allclose(changed, before.logits)
    if name == "attention" and not sites.layout.pre_norm:
        torch.testing.assert_close(x, before.hidden_states[1])

"""Computing in bf16: frozen weights cast once and given back, cheap dropout and softmax, what trains in fp32."""

from itertools import product

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.economy import bf16
from peftbench.backbones.economy.attach import economical
from peftbench.backbones.economy.bf16 import dropout, frozen_in_bf16, softmax
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.lora import LoraConfig, dora_weight
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

METHODS = {
    "adapter": AdapterConfig(bottleneck=4),
    "lora": LoraConfig(rank=2, targets=["all"]),
    "dora": LoraConfig(rank=2, dora=True),
    "prefix": PrefixConfig(length=3),
    "prompt": PromptConfig(length=3),
    "bitfit": BitfitConfig(),
    "full": FullConfig(),
}


@pytest.mark.parametrize("p", [0.1, 0.498, 0.6, 0.95])
def test_rate_scale_and_gradient(p):
    torch.manual_seed(0)
    x = torch.full((1000, 501), 2.0, dtype=torch.bfloat16, requires_grad=True)
    y = dropout(x, p)
    kept = y != 0
    assert abs(kept.double().mean().item() - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5  # five standard errors
    torch.testing.assert_close(y[kept].float(), torch.full((int(kept.sum()),), 2 / (1 - p)), rtol=1e-2, atol=0)
    y.sum().backward()
    assert torch.equal(x.grad != 0, kept)


@pytest.mark.parametrize("dropped", [1, 66, 6554, 32640, 32700, 58982, 64880])
def test_the_threshold_drops_exactly_so_many_of_all_bit_patterns(dropped):
    patterns = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    ones = torch.ones(2**16, dtype=torch.bfloat16)
    kept = torch.ops.aten.threshold_backward(ones, patterns, bf16._threshold(dropped))
    assert int((kept == 0).sum()) == dropped


def test_softmax_and_its_gradient_are_torch_s():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 11).bfloat16()
    grad = torch.randn_like(x)
    results = []
    for function in (softmax, lambda x: F.softmax(x, dim=-1)):
        own = x.clone().requires_grad_()
        y = function(own)
        y.backward(grad)
        assert y.dtype == torch.bfloat16
        results.append((y.detach(), own.grad))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=2e-2, atol=2e-3)


def test_frozen_weights_are_cast_and_given_back_bit_for_bit():
    model = tiny_model("bert")
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    before = {name: (p, p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    with pytest.raises(ZeroDivisionError), frozen_in_bf16(model):
        layer = model.base_model.encoder.layer[0]
        assert layer.attention.self.query.weight.dtype == torch.bfloat16
        assert model.base_model.embeddings.word_embeddings.weight.dtype == torch.bfloat16
        assert layer.attention.output.LayerNorm.weight.dtype == torch.float32
        assert model.classifier.weight.dtype == torch.float32, "it trains"
        raise ZeroDivisionError
    for name, parameter in model.named_parameters():
        same, place, values = before[name]
        assert parameter is same and parameter.data_ptr() == place and torch.equal(parameter, values)


def test_copies_are_kept_for_the_next_block_and_made_anew_for_other_values():
    linear = nn.Linear(4, 4).requires_grad_(False)
    copies = {}
    seen = []
    for _ in range(2):
        with frozen_in_bf16(linear, copies):
            seen.append(linear.weight.data_ptr())
    assert seen[0] == seen[1]
    linear.weight.data = linear.weight.data + 1
    with frozen_in_bf16(linear, copies):
        torch.testing.assert_close(linear.weight.float(), copies[linear.weight][0], rtol=1e-2, atol=1e-2)


_WITHOUT_BIASES = [("modernbert", "bitfit")]


@pytest.mark.parametrize(
    ("architecture", "name"), [pair for pair in product(ARCHITECTURES, METHODS) if pair not in _WITHOUT_BIASES]
)
def test_every_method_computes_in_bf16_what_it_computes_in_fp32(architecture, name):
    results = {}
    for precision in ("fp32", "bf16"):
        model = tiny_model(architecture)
        model.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        sites = find_sites(model)
        torch.manual_seed(1)
        method = build(METHODS[name], sites)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.train()
        with economical(sites, method, False, precision):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = model(**tiny_batch()).logits.float()
            (logits**2).sum().backward()
        grads = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
        assert all(g.dtype == torch.float32 for g in grads.values()) and grads
        results[precision] = logits.detach(), torch.cat([g.flatten() for g in grads.values()])
    (logits, grads), (logits16, grads16) = results["fp32"], results["bf16"]
    assert (logits16 - logits).abs().max() < 0.05 * logits.abs().max() + 0.02
    assert F.cosine_similarity(grads, grads16, dim=0) > 0.98


def test_dora_s_norm_is_not_rounded_to_bf16():
    torch.manual_seed(0)
    weight, a, b = torch.randn(8, 32), torch.randn(2, 32), torch.randn(8, 2)
    magnitude = torch.rand(8) + 1
    exact = dora_weight(weight, a, b, magnitude, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dora_weight(weight, a, b, magnitude, 2.0), exact)

"""Computing in bf16: frozen weights cast once and given back, cheap dropout and attention, what trains in fp32."""

from itertools import product

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from torch import nn
from torch.nn import functional as F

from peftbench.backbones.economy import bf16, cpu
from peftbench.backbones.economy.attach import attached, economical
from peftbench.backbones.economy.bf16 import dropout
from peftbench.backbones.economy.frozen import frozen_in_bf16
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.fusion import FusionConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig, dora_weight
from peftbench.methods.mam import MamConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

METHODS = {
    "adapter": AdapterConfig(bottleneck=4),
    "pfeiffer": PfeifferConfig(bottleneck=4),
    "fusion": FusionConfig(runs={"a": "a", "b": "b"}),
    "parallel": ParallelConfig(bottleneck=4, learn_scale=True),
    "compacter": CompacterConfig(bottleneck=4),
    "ia3": Ia3Config(targets=["all"]),
    "lora": LoraConfig(rank=2, targets=["all"]),
    "dora": LoraConfig(rank=2, dora=True),
    "mam": MamConfig(bottleneck=4, length=3, mid_dim=6),
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


def test_attention_and_its_gradients_are_torch_s():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, rows, 8).bfloat16() for rows in (5, 7, 7))
    mask = torch.randn(1, 3, 5, 7)  # as a learned bias of positions
    results = []
    for attend, dtype in ((cpu.attention, torch.bfloat16), (F.scaled_dot_product_attention, torch.float32)):
        leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in (query, key, value)]
        bias = mask.clone().requires_grad_()
        output = attend(*leaves, attn_mask=bias)
        output.float().pow(2).sum().backward()
        results.append((output, *(leaf.grad for leaf in (*leaves, bias))))
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours.float(), torchs, rtol=2e-2, atol=2e-2)


def test_attention_drops_weights_alike_forward_and_backward():
    torch.manual_seed(0)
    value = torch.eye(512, dtype=torch.bfloat16).expand(1, 1, 512, 512).requires_grad_()
    query = key = torch.zeros(1, 1, 512, 8, dtype=torch.bfloat16)
    weights = cpu.attention(query, key, value, dropout_p=0.1)  # of equal scores: 1/512 each, scaled, or 0
    kept = weights > 0
    assert abs(kept.float().mean().item() - 0.9) < 5 * (0.09 / 512**2) ** 0.5
    torch.testing.assert_close(
        weights[kept].float(), torch.full_like(weights[kept], 1 / 512 / 0.9).float(), rtol=1e-2, atol=0
    )
    weights.sum().backward()
    torch.testing.assert_close(value.grad[0, 0, :, 0].float(), weights.float().sum(2)[0, 0], rtol=3e-2, atol=0)


def test_random_words_are_uniform_and_uncorrelated():
    torch.manual_seed(0)
    levels = bf16.random_words(4_000_000).view(torch.int16).to(torch.int64) + 2**15
    counts, expected = torch.bincount(levels, minlength=2**16).double(), len(levels) / 2**16
    chi_square = ((counts - expected) ** 2 / expected).sum().item() / (2**16 - 1)
    assert abs(chi_square - 1) < 5 * (2 / 2**16) ** 0.5  # five standard deviations
    centred = levels.double() / 2**16 - 0.5
    for lag in (1, 2, 3, 4, 5, 8, 64, 384):
        assert abs((centred[:-lag] * centred[lag:]).mean().item()) * 12 * len(levels) ** 0.5 < 5, lag


def test_random_words_follow_the_generator():
    torch.manual_seed(0)
    first, second = bf16.random_words(1000), bf16.random_words(1000)
    torch.manual_seed(0)
    assert torch.equal(bf16.random_words(1000), first)
    assert not torch.equal(first, second)


def test_attention_of_a_repeated_query_is_that_of_all_its_rows():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, rows, 8).bfloat16() for rows in (1, 7, 7))
    mask = torch.zeros(2, 1, 7, 7).bfloat16()
    mask[:, :, :, 5:] = torch.finfo(torch.bfloat16).min
    results = []
    for repeated in (query.expand(-1, -1, 7, -1), query.repeat(1, 1, 7, 1)):
        leaves = [leaf.detach().clone().requires_grad_() for leaf in (key, value)]
        output = cpu.attention(repeated, *leaves, attn_mask=mask)
        assert output.shape == (2, 3, 7, 8)
        output[:, :, 0].float().pow(2).sum().backward()
        results.append((output.detach(), *(leaf.grad for leaf in leaves)))
    for once, each in zip(*results, strict=True):
        torch.testing.assert_close(once, each, rtol=2e-2, atol=2e-3)
    exact = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask[:, :, :1].float())
    torch.testing.assert_close(results[0][0].float(), exact.expand(-1, -1, 7, -1), rtol=2e-2, atol=2e-2)


def test_a_held_weight_multiplies_as_its_rounded_values_do():
    torch.manual_seed(0)
    linear = nn.Linear(48, 80)
    linear.weight.requires_grad_(False)
    x = torch.randn(3, 5, 48).bfloat16().requires_grad_()
    grad = torch.randn(3, 5, 80).bfloat16()
    with frozen_in_bf16(linear), cpu.CheapOnCpu(), torch.autocast("cpu", torch.bfloat16):
        output = linear(x)
        output.backward(grad)
    assert output.dtype == x.grad.dtype == torch.bfloat16 and linear.bias.grad.dtype == torch.float32
    weight = linear.weight.bfloat16().float()
    torch.testing.assert_close(output.float(), F.linear(x.float(), weight, linear.bias), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(x.grad.float(), grad.float() @ weight, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(linear.bias.grad, grad.float().sum((0, 1)), rtol=1e-5, atol=1e-5)


def test_frozen_weights_are_cast_and_given_back_bit_for_bit():
    model = tiny_model("bert")
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    before = {name: (p, p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    with pytest.raises(ZeroDivisionError), frozen_in_bf16(model):
        layer = model.base_model.encoder.layer[0]
        assert layer.attention.self.query.weight.dtype == layer.attention.self.query.bias.dtype == torch.bfloat16
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
        torch.testing.assert_close(linear.weight.float(), copies[linear.weight].original, rtol=1e-2, atol=1e-2)


def test_what_has_trained_answers_as_it_did_where_the_kernels_are_torch_s():
    model = tiny_model("bert").eval().requires_grad_(False)
    sites, batch = find_sites(model), tiny_batch(model)
    method = build(FullConfig(), sites)
    logits = []
    for trains in (True, False):
        method.requires_grad_(trains)
        with attached(sites, method, False, "bf16"), torch.autocast("cpu", torch.bfloat16):
            logits.append(model(**batch).logits)
    assert torch.equal(*logits)


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

"""The CPU kernels: a dropout with its rate, scale and gradient; products and attention that are torch's."""

from contextlib import nullcontext

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from torch.nn import functional as F

from peftbench.backbones.economy import cpu
from peftbench.backbones.economy.cpu import CheapOnCpu, attention, dropout, linear
from peftbench.methods import build, find_sites
from peftbench.methods.prefix import PrefixConfig


@pytest.fixture(params=["oneDNN", "MKL"], autouse=True)
def products(request, monkeypatch):
    """Each test as on a processor of Intel's, and as on another."""
    monkeypatch.setattr(cpu, "MKL_IS_FAST", request.param == "MKL")
    return request.param


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
    assert torch.equal(dropout(x, 0.5, training=False), x)
    assert torch.equal(dropout(x, 0.0, training=True), x)
    assert not dropout(x, 1.0, training=True).any()


@pytest.mark.parametrize("shape", [(7, 12), (3, 5, 12), (2, 1, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_and_its_gradients_are_torch_s(shape, bias):
    torch.manual_seed(2)
    tensors = [torch.randn(*shape), torch.randn(20, 12), torch.randn(20) if bias else None]
    results = []
    for function in (linear, F.linear):
        copies = [None if t is None else t.clone().requires_grad_() for t in tensors]
        output = function(*copies)
        (output**2).sum().backward()
        results.append([output.detach(), *(c.grad for c in copies if c is not None)])
    for ours, torchs in zip(*results, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("weight", "bias"), [((2, 20, 12), None), ((20, 11), None), ((20, 12), (19,)), ((240,), (20,))]
)
def test_what_does_not_fit_is_an_error(weight, bias):
    """OneDNN would read past the end."""
    with pytest.raises(RuntimeError):
        linear(torch.randn(3, 5, 12), torch.randn(*weight), None if bias is None else torch.randn(*bias))


def test_linear_gives_only_the_gradients_that_are_asked_for():
    x, weight, bias = torch.randn(4, 6, requires_grad=True), torch.randn(3, 6), torch.randn(3)
    linear(x, weight, bias).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(4, -1))
    assert weight.grad is None and bias.grad is None


def test_linear_takes_other_types_and_autocast():
    x, weight = torch.randn(4, 6), torch.randn(3, 6)
    assert linear(x.double(), weight.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16


@pytest.mark.parametrize("mask", [None, "boolean", "added"])
def test_attention_is_torch_s(mask):
    torch.manual_seed(3)
    q, k, v = (torch.randn(2, 4, 6, 8, requires_grad=True) for _ in range(3))
    seen = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    seen[1, :, :, 4:] = False
    given = {None: None, "boolean": seen, "added": torch.zeros(2, 1, 6, 6).masked_fill(~seen, -1e9)}[mask]
    for scale in (None, 0.3):
        ours = attention(q, k, v, given, scale=scale)
        theirs = F.scaled_dot_product_attention(q, k, v, given, scale=scale)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        for one, two in zip(*(torch.autograd.grad((o**2).sum(), (q, k, v)) for o in (ours, theirs)), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lowest", [torch.finfo(torch.float32).min, float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_that_sees_nothing_is_no_nan(lowest, dtype):
    query, key, value = (torch.randn(2, 3, 4, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, 1] = lowest
    output = attention(query, key, value, attn_mask=mask)
    output.sum().backward()
    assert all(tensor.isfinite().all() for tensor in (output, query.grad, key.grad, value.grad))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_gives_the_same_logits_and_gradients(architecture):
    results = []
    for context in (nullcontext(), CheapOnCpu()):
        model = tiny_model(architecture)
        with context:
            logits = model(**tiny_batch()).logits
        (logits**2).sum().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    scale = max(t.abs().max() for t in results[0][1:])
    for plain, cheap in zip(*results, strict=True):
        assert (plain - cheap).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("method", [None, PrefixConfig(length=3)])
def test_every_dropout_of_a_model_is_replaced(implementation, method, monkeypatch):
    """Embeddings, attention weights and the two residuals of each of 2 layers, and the classifier's."""
    model = tiny_model("bert")
    model.set_attn_implementation(implementation)
    rates = []
    plain = cpu._Dropout.apply
    monkeypatch.setattr(cpu._Dropout, "apply", lambda x, p: rates.append(p) or plain(x, p))
    sites = find_sites(model)
    attached = build(method, sites).on(sites) if method else nullcontext()
    with attached, CheapOnCpu():
        model.train()
        torch.manual_seed(0)
        once = model(**tiny_batch()).logits
        torch.manual_seed(0)
        assert torch.equal(model(**tiny_batch()).logits, once), "the seed decides"
        assert rates == [0.1] * 2 * (1 + 2 * 3 + 1)
        model.eval()
        assert torch.equal(model(**tiny_batch()).logits, model(**tiny_batch()).logits)
    assert len(rates) == 16


def test_outside_of_the_block_nothing_is_replaced(monkeypatch):
    monkeypatch.setitem(cpu._REPLACED, F.linear, lambda *tensors: "replaced")
    x, weight = torch.randn(2, 3), torch.randn(4, 3)
    with CheapOnCpu():
        assert F.linear(x, weight) == "replaced"
    assert F.linear(x, weight).shape == (2, 4)


def test_products_go_through_one_dnn_where_mkl_is_slow(products, monkeypatch):
    seen = []
    monkeypatch.setattr(cpu, "_product", lambda *tensors: seen.append(tensors) or F.linear(*tensors))
    linear(torch.randn(2, 3), torch.randn(4, 3))
    assert bool(seen) == (products == "oneDNN")


def test_linear_s_output_takes_in_place_arithmetic_and_any_number_of_rows():
    x, weight = torch.randn(2, 3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    output = linear(x, weight)
    output += 1
    (output**2).sum().backward()
    found, x.grad = x.grad, None
    ((F.linear(x, weight) + 1) ** 2).sum().backward()
    torch.testing.assert_close(found, x.grad)
    empty = torch.randn(0, 4, requires_grad=True)
    linear(empty, weight, torch.zeros(5)).sum().backward()
    assert empty.grad.shape == (0, 4)

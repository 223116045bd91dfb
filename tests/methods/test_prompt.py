"""What prompt tuning spares at inference changes no result, and what it keeps is never stale."""

from contextlib import contextmanager

import pytest
import torch
from tiny import ARCHITECTURES, tiny_batch, tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from peftbench.backbones.cpu import CheapOnCpu
from peftbench.backbones.first_row import FirstRow
from peftbench.methods import build, find_sites
from peftbench.methods.lora import LoraConfig
from peftbench.methods.prompt import PromptConfig, widen_mask

EAGER_ONLY = ("mpnet", "deberta-v2")
FIRST = {"input_ids": tiny_batch()["input_ids"][:1, :1]}  # one text of one token


def _prompt(sites, insert="after_first"):
    torch.manual_seed(3)
    return build(PromptConfig(length=3, init="uniform", insert=insert), sites).requires_grad_(False)


@contextmanager
def _plain(sites, vectors, insert="after_first"):
    """Prompt tuning with nothing spared: rows in before the first layer, under a head out behind the last."""
    at = 1 if insert == "after_first" else 0

    def enter(module, args, kwargs):
        call = dict(zip(("hidden_states", "attention_mask"), args, strict=False)) | kwargs
        x, mask = call["hidden_states"], call.get("attention_mask")
        rows = vectors.to(x.dtype)[None].repeat(x.shape[0], 1, 1)
        mask = None if mask is None else widen_mask(mask, 3, at)
        return args[2:], call | {"hidden_states": torch.cat([x[:, :at], rows, x[:, at:]], 1), "attention_mask": mask}

    def leave(module, args, output):
        x = output if isinstance(output, torch.Tensor) else output[0]
        text = torch.cat([x[:, :at], x[:, at + 3 :]], 1)
        return text if x is output else (text, *output[1:])

    (encoder,) = sites.at("embeddings")
    handles = [encoder.register_forward_pre_hook(enter, with_kwargs=True)]
    if insert == "front" or sites.head_modules:
        handles.append(sites.layers[-1].register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(ours, plain, tolerance=1e-6):
    assert ours.shape == plain.shape
    assert (ours - plain).abs().max() <= tolerance * max(1, plain.abs().max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("insert", ["after_first", "front"])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_inference_gives_what_the_plain_forward_gives(architecture, insert, head, attention):
    if attention == "sdpa" and architecture in EAGER_ONLY:
        pytest.skip("it has eager attention alone")
    model = tiny_model(architecture)
    model.set_attn_implementation(attention)
    model = model if head else model.base_model
    sites = find_sites(model)
    method = _prompt(sites, insert)
    batches = tiny_batch(padded=True), tiny_batch(padded=False), FIRST
    with torch.no_grad(), _plain(sites, method.vectors, insert):
        plain = [model(**batch)[0] for batch in batches]
    with method.on(sites):
        for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):  # rows kept in one serve the other
            with mode():
                for batch, expected in zip(batches, plain, strict=True):
                    _check(model(**batch)[0], expected)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kernels", [CheapOnCpu, torch.no_grad])
def test_with_the_first_row_alone(layers, kernels):
    """In a model of one layer all that is spared meets at one query map."""
    config = AutoConfig.for_model("bert", **{**ARCHITECTURES["bert"], "num_hidden_layers": layers})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    sites = find_sites(model)
    method = _prompt(sites)
    batches = tiny_batch(padded=True), tiny_batch(padded=False), FIRST
    with torch.no_grad(), _plain(sites, method.vectors):
        plain = [model(**batch).logits for batch in batches]
    with torch.no_grad(), kernels(), method.on(sites):
        for spares in (False, True, False):
            first = FirstRow(sites) if spares else None
            for batch, expected in zip(batches, plain, strict=True):
                _check(model(**batch).logits, expected)
            if first is not None:
                first.remove()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("insert", ["after_first", "front"])
def test_training_runs_every_row(architecture, insert):
    """With gradients, in training mode, the same random numbers give the same loss and gradient."""
    model = tiny_model(architecture)
    sites = find_sites(model)
    method = _prompt(sites, insert)
    with torch.no_grad(), method.on(sites):
        model(**tiny_batch())
    method.vectors.requires_grad_()
    model.train()
    # the dropout behind the last attention draws for the text's rows alone, so it is switched off
    for part in (sites.layers[-1], *sites.head_modules):
        part.eval()
    results = []
    for attached in (_plain(sites, method.vectors, insert), method.on(sites)):
        with attached:
            method.zero_grad()
            torch.manual_seed(5)
            logits = model(**tiny_batch()).logits
            (logits**2).sum().backward()
            results.append((logits.detach(), method.vectors.grad.clone()))
    (plain, plain_gradient), (logits, gradient) = results
    _check(logits, plain)
    _check(gradient, plain_gradient, 1e-5)
    assert gradient.abs().max() > 1e-3


def _rows_seen(monkeypatch, sites, *places):
    """Return a list that gets the number of rows each time one of these linear maps runs."""
    seen = []
    for site, layer in places:
        linear = sites.at(site)[layer]

        def forward(x, inner=linear.forward):
            seen.append(x.shape[-2])
            return inner(x)

        monkeypatch.setattr(linear, "forward", forward)
    return seen


FIRST_MAPS = [("attention.query", 0), ("attention.key", 0), ("attention.value", 0)]
LAST_MAPS = [("attention.query", -1), ("attention.output", -1)]


def test_rows_are_spared_at_inference_alone(monkeypatch):
    model = tiny_model("bert")
    sites = find_sites(model)
    method = _prompt(sites)
    seen = _rows_seen(monkeypatch, sites, *FIRST_MAPS, *LAST_MAPS)
    with method.on(sites):
        model(**tiny_batch())
        assert seen == [15] * 5, "with gradients every row runs"
        seen.clear()
        with torch.no_grad():
            model(**tiny_batch())
            assert seen == [12, 3] * 3 + [12, 12], "the first time the vectors are mapped too"
            seen.clear()
            model(**tiny_batch())
            assert seen == [12] * 5
            seen.clear()
            sites.at("attention.key")[0](torch.zeros(1, 7, 32))
            assert seen == [7], "outside the encoder a map keeps its rows"


def test_the_bare_encoder_s_last_rows_all_run(monkeypatch):
    model = tiny_model("bert").base_model
    sites = find_sites(model)
    seen = _rows_seen(monkeypatch, sites, *LAST_MAPS)
    with _prompt(sites).on(sites), torch.no_grad():
        model(**tiny_batch())
    assert seen == [15, 15]


def test_a_failed_forward_leaves_the_maps_as_they_were():
    model = tiny_model("bert")
    sites = find_sites(model)
    x = torch.randn(1, 7, 32)
    key = sites.at("attention.key")[0]
    plain = key(x)

    def fail(module, args):
        raise ValueError

    with _prompt(sites).on(sites), torch.no_grad():
        handle = sites.at("ffn.up")[0].register_forward_pre_hook(fail)
        with pytest.raises(ValueError):
            model(**tiny_batch())
        handle.remove()
        assert torch.equal(key(x), plain)


def _step(model, method, key):
    with torch.enable_grad():
        method.vectors.requires_grad_()
        optimiser = torch.optim.AdamW([method.vectors], lr=0.1)
        model(**tiny_batch()).logits.sum().backward()
        optimiser.step()


def _load(assign):
    def load(model, method, key):
        tensors = {name: torch.randn_like(tensor) for name, tensor in method.state_dict().items()}
        method.load_state_dict(tensors, assign=assign)

    return load


def _load_backbone(model, method, key):
    model.load_state_dict(tiny_model("bert", seed=7).state_dict())


def _another_weight(model, method, key):
    key.weight.data = key.weight.data * 3  # as `Lora.merge` does


def _there_and_back(model, method, key):
    for part in (model, method):
        part.to(torch.bfloat16).float()


CHANGES = {
    "vectors' data in place": lambda model, method, key: method.vectors.data.mul_(3),
    "vectors in place": lambda model, method, key: method.vectors.mul_(3),
    "vectors trained": _step,
    "vectors loaded": _load(assign=False),
    "vectors replaced": _load(assign=True),
    "vectors of another type": lambda model, method, key: method.bfloat16(),
    "weight in place": lambda model, method, key: key.weight.mul_(3),
    "weight replaced": _another_weight,
    "bias in place": lambda model, method, key: key.bias.copy_(torch.randn(32)),
    "no bias": lambda model, method, key: key.register_parameter("bias", None),
    "backbone loaded": _load_backbone,
    "double": lambda model, method, key: (model.double(), method.double()),
    "double backbone": lambda model, method, key: model.double(),
    "half": lambda model, method, key: (model.half(), method.half()),
    "half backbone": lambda model, method, key: model.half(),
    "there and back": _there_and_back,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("map_", ["attention.query", "attention.key", "attention.value"])
def test_what_is_kept_is_not_stale(change, mode, map_):
    model = tiny_model("bert")
    sites = find_sites(model)
    linear = sites.at(map_)[0]
    with torch.no_grad():
        for name in ("query", "key", "value"):
            sites.at(f"attention.{name}")[0].bias.normal_()
    method = _prompt(sites)
    with method.on(sites), torch.no_grad():
        before = model(**tiny_batch()).logits
        with mode() if change not in ("vectors trained", "vectors replaced") else torch.no_grad():
            CHANGES[change](model, method, linear)
        after = model(**tiny_batch()).logits
    with _plain(sites, method.vectors), torch.no_grad():
        plain = model(**tiny_batch()).logits
    half = after.dtype == torch.float16
    _check(after, plain, 1e-2 if half else 1e-6)
    with method.on(sites), torch.no_grad():
        assert torch.equal(model(**tiny_batch()).logits, after), "as one that is attached anew"
    no_effect = change == "bias in place" and map_ == "attention.key"  # the softmax takes it out
    assert no_effect or not torch.equal(after, before.to(after.dtype))


def test_a_later_tensor_at_the_same_address_is_noticed():
    """The allocator gives a freed weight's memory to the next of its size, and that one's version is the same."""
    model = tiny_model("bert")
    sites = find_sites(model)
    weight = sites.at("attention.key")[0].weight
    method = _prompt(sites)
    for _ in range(5):
        with method.on(sites), torch.no_grad():
            model(**tiny_batch())
            other = weight * -1.5
            weight.data = torch.empty(0)
            weight.data = other * 1
            del other
            after = model(**tiny_batch()).logits
        with _plain(sites, method.vectors), torch.no_grad():
            _check(after, model(**tiny_batch()).logits)


def test_tensors_made_in_inference_mode_are_never_stale():
    """They count no changes in place."""
    with torch.inference_mode():
        model = tiny_model("bert")
        sites = find_sites(model)
        method = _prompt(sites)
        with method.on(sites):
            before = model(**tiny_batch()).logits
            method.vectors.mul_(3)
            after = model(**tiny_batch()).logits
        with _plain(sites, method.vectors):
            plain = model(**tiny_batch()).logits
    _check(after, plain)
    assert (after - before).abs().max() > 1e-3


def test_autocast_comes_and_goes():
    model = tiny_model("bert")
    sites = find_sites(model)
    method = _prompt(sites)
    results = {}
    for name, attached in (("plain", _plain(sites, method.vectors)), ("spared", method.on(sites))):
        with attached, torch.inference_mode():
            results[name] = []
            for casts in (True, False, True, False):
                with torch.autocast("cpu", torch.bfloat16, enabled=casts):
                    results[name].append(model(**tiny_batch()).logits.float())
    for i, (plain, spared) in enumerate(zip(results["plain"], results["spared"], strict=True)):
        _check(spared, plain, 1e-6 if i % 2 else 2e-2)
    assert torch.equal(results["spared"][0], results["spared"][2])
    assert torch.equal(results["spared"][1], results["spared"][3])
    assert not torch.equal(results["spared"][0], results["spared"][1])


@pytest.mark.parametrize("lora_first", [True, False])
def test_beside_lora_attached_merged_and_detached(lora_first):
    model = tiny_model("bert")
    sites = find_sites(model)
    method, lora = _prompt(sites), build(LoraConfig(rank=2, targets=["all"]), sites)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)

    def all_states():
        results = [model(**tiny_batch()).logits]
        for step in (lora.merge, lora.unmerge, lora.merge, lora.detach):
            step()
            results.append(model(**tiny_batch()).logits)
        return results

    with torch.no_grad():
        lora.attach(sites)
        with _plain(sites, method.vectors):
            plain = all_states()
        for first in (lora, method) if lora_first else (method, lora):
            first.attach(sites)
        spared = all_states()
        method.detach()
    for ours, theirs in zip(spared, plain, strict=True):
        _check(ours, theirs)
    assert (plain[0] - plain[-1]).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_gives_the_backbone_back(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    with torch.no_grad():
        before = model(**tiny_batch()).logits
        with _prompt(sites).on(sites):
            model(**tiny_batch())
        assert torch.equal(model(**tiny_batch()).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

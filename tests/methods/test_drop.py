"""AdapterDrop: bare layers are the backbone's own, batches draw them alike everywhere, nothing below is kept."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import ARCHITECTURES, headed, tiny_batch, tiny_model

from peftbench.backbones.economy.first_token import FirstTokenOnly
from peftbench.backbones.load import blank_backbone
from peftbench.config.groups import read_group
from peftbench.errors import UserError
from peftbench.methods import METHODS, build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bottleneck import BottleneckMethod, count_bottleneck
from peftbench.methods.drop import LAB_RATES, lab, robust
from peftbench.methods.lora import LoraConfig
from peftbench.methods.mam import MamConfig
from peftbench.methods.pfeiffer import PfeifferConfig

FOR_TEXTS = {name: cls for name, cls in METHODS.items() if "texts" in cls.modalities}
CLASSES = {name: cls for name, cls in FOR_TEXTS.items() if issubclass(cls, BottleneckMethod)}


def shaken(config, sites):
    method = build(config, sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return method


def config_of(name, **settings):
    more = {"length": 3, "mid_dim": 6} if name == "mam" else {}
    return CLASSES[name].config_class(bottleneck=4, **more, **settings)


def frozen_model(architecture="bert", **settings):
    return tiny_model(architecture, **settings).requires_grad_(False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", CLASSES)
def test_the_lowest_layers_are_the_backbone_s_own(name, architecture):
    """Up to the lowest adapter left, hidden states are those of the bare model, bit for bit; behind it they are not."""
    model = frozen_model(architecture)
    sites = find_sites(model)
    count = len(sites.layers)
    bare = model(**tiny_batch(), output_hidden_states=True).hidden_states
    method = shaken(config_of(name), sites)
    with method.on(sites):
        whole = model(**tiny_batch()).logits
        for n in range(1, count):
            method.drop(range(n))
            states = model(**tiny_batch(), output_hidden_states=True).hidden_states
            assert all(torch.equal(states[i], bare[i]) for i in range(n + 1))
            assert not torch.allclose(states[n + 1], bare[n + 1])
        method.drop(range(count))
        final = model(**tiny_batch(), output_hidden_states=True).hidden_states[-1]
        assert torch.equal(final, bare[-1]), "no layer acts"
        method.drop(())
        assert torch.equal(model(**tiny_batch()).logits, whole)
    assert torch.equal(model(**tiny_batch(), output_hidden_states=True).hidden_states[-1], bare[-1])


@pytest.mark.parametrize("name", ["adapter", "pfeiffer", "parallel"])  # whose tensors are one layer's each
def test_dropping_layers_is_training_without_these_layers(name):
    """What acts with n dropped is what `layers=n-` builds, the same tensors in it."""
    model = frozen_model(num_hidden_layers=3)
    sites = find_sites(model)
    whole, upper = shaken(config_of(name), sites), build(config_of(name, layers="1-"), sites)
    with whole.on(sites):
        whole.drop([0])
        dropped = model(**tiny_batch()).logits
    tensors = dict(whole.named_parameters())
    with torch.no_grad():
        for key, parameter in upper.named_parameters():
            parts = key.split(".")
            numbers = [i for i, part in enumerate(parts) if part.isdigit()]
            if not key.startswith("replaced."):
                parts[numbers[-1]] = str(int(parts[numbers[-1]]) + 1)
            parameter.copy_(tensors[".".join(parts)])
    with upper.on(sites):
        assert torch.equal(model(**tiny_batch()).logits, dropped)


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_below_the_lowest_adapter_is_kept_for_the_backward_pass(name):
    model = frozen_model(num_hidden_layers=4)
    sites = find_sites(model)
    method = shaken(config_of(name, drop="robust"), sites)

    def kept() -> int:
        """Bytes that the backward pass will read, each tensor once, weights left out."""
        weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *method.parameters())}
        found: dict[int, int] = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(**tiny_batch()).logits.sum()
        if loss.requires_grad:
            loss.backward()
        return sum(found.values())

    model.train()
    with method.on(sites):
        amounts = []
        for n in range(5):
            method.drop(range(n))
            amounts.append(kept())
            for parameter in method.parameters():
                parameter.grad = None
    assert all(more > 1.15 * less for more, less in zip(amounts[:-1], amounts[1:], strict=True)), amounts
    assert amounts[-1] < 0.2 * amounts[0]
    assert amounts[3] < 0.5 * amounts[0]


def test_parameters_of_bare_layers_get_no_gradient():
    model = frozen_model(num_hidden_layers=3)
    sites = find_sites(model)
    method = shaken(AdapterConfig(bottleneck=4), sites)
    with method.on(sites):
        method.drop([0, 1])
        model(**tiny_batch()).logits.square().sum().backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert reached and all(".2." in name or "layer/2/" in name for name in reached), "the embeddings' norm is bare too"


def test_the_order_of_hooks_stays():
    model = frozen_model()
    sites = headed(model).sites
    method = shaken(PfeifferConfig(bottleneck=4), sites)
    with method.on(sites):
        whole = model(**tiny_batch()).logits
        first = FirstTokenOnly(sites)
        method.drop([0])
        dropped = model(**tiny_batch()).logits
        first.remove()
        assert torch.allclose(model(**tiny_batch()).logits, dropped, atol=1e-5)
        method.drop(())
        assert torch.equal(model(**tiny_batch()).logits, whole)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_two_prefixes_of_which_one_is_bare():
    model = frozen_model()
    sites = find_sites(model)
    one, two = (shaken(MamConfig(bottleneck=4, length=length, mid_dim=6), sites) for length in (2, 3))
    with two.on(sites):
        alone = model(**tiny_batch(), output_hidden_states=True).hidden_states[1]
    with one.on(sites), two.on(sites):
        one.drop([0])
        assert torch.allclose(model(**tiny_batch(), output_hidden_states=True).hidden_states[1], alone, atol=1e-6)


def test_robust_draws_every_n_that_leaves_a_layer():
    random = np.random.default_rng(0)
    drawn = [tuple(robust([2, 3, 5], 6, 0.5, random)) for _ in range(300)]
    assert set(drawn) == {(), (2,), (2, 3)}
    assert all(80 < drawn.count(each) < 120 for each in set(drawn))


def test_the_lab_s_rule_drops_by_third_and_complexity():
    random = np.random.default_rng(0)

    def rates(complexity):
        drawn = [lab(range(12), 12, complexity, random) for _ in range(4000)]
        return [sum(layer in one for one in drawn) / 4000 for layer in (0, 3, 4, 7, 8, 11)]

    assert rates(0) == pytest.approx([rate for rate in LAB_RATES for _ in "ab"], abs=0.04)
    assert rates(0.5) == pytest.approx([rate / 2 for rate in LAB_RATES for _ in "ab"], abs=0.03)
    assert rates(1) == [0] * 6


@pytest.mark.parametrize("drop", ["robust", "lab"])
def test_what_is_drawn_ends_with_training(drop):
    sites = find_sites(frozen_model(num_hidden_layers=4))
    method = build(PfeifferConfig(bottleneck=4, drop=drop), sites)
    seen = set()
    with method.on(sites):
        random = np.random.default_rng(0)
        for _ in range(50):
            method.redraw(random, sites)
            seen.add(method.bare)
        assert len(seen) > 2
        method.redraw(None, sites)
        assert method.bare == frozenset()


def test_layers_computed_again_in_the_backward_pass_are_left_out_again(train_tiny, tmp_path):
    found = []
    for name, more in (("kept", ()), ("again", ("trainer.checkpointing=true",))):
        lines = ("method=adapter", "method.bottleneck=4", "method.drop=robust", f"output_dir={tmp_path / name}", *more)
        train_tiny("opinions", "model.dropout=0.0", "trainer.accumulate=2", *lines)
        found += [load_file(path) for path in (tmp_path / name).rglob("adapter.safetensors")]
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_adapter_drop_s_published_count():
    """884,736 (Rücklé et al. 2021, appendix): Pfeiffer adapters of m = 48 on BERT-base, weights without biases."""
    model = next(model for model in read_group("model") if model["name"] == "bert_base")
    sites = blank_backbone(model["architecture"]).sites
    method = build(PfeifferConfig(bottleneck=48), sites)
    assert sum(p.numel() for p in method.parameters() if p.dim() > 1) == 884_736
    assert count_bottleneck(768, 48) - 48 - 768 == 884_736 // 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": "robus"}, "method.drop=robus is unknown: choose from none, robust, lab"),
        ({"complexity": 0.3}, "method.complexity=0.3 says something with method.drop=lab alone"),
        ({"complexity": 1.5}, "method.complexity=1.5 must be 1 or less"),
        ({"complexity": -1}, "method.complexity=-1 must be 0 or more"),
        ({"drop": "robust", "position": "output"}, "method.drop=robust: method.position=output is in no layer"),
        ({"layers": "2-"}, "method.layers=2- is outside of the model: its layers are 0-1"),
        ({"layers": ["late"]}, r"method.layers=\[late\] is outside of the model"),
        ({"layers": "lower"}, "method.layers=lower must be all, a range"),
    ],
)
def test_a_mistake_is_one_line(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        build(AdapterConfig(bottleneck=4, **settings), find_sites(tiny_model("bert")))
    assert "\n" not in str(caught.value)


def test_ways_to_say_layers():
    sites = find_sites(tiny_model("bert", num_hidden_layers=6))

    def layers(text):
        return list(build(PfeifferConfig(bottleneck=4, layers=text), sites).droppable_layers(sites))

    assert layers("2-") == [2, 3, 4, 5] and layers(["0", "4-"]) == [0, 4, 5]
    assert layers("middle") == [2, 3] and layers(["early", "late"]) == [0, 1, 4, 5]


def test_a_merged_method_drops_nothing():
    sites = find_sites(frozen_model())
    method = build(LoraConfig(rank=2), sites)
    with method.on(sites):
        method.merge()
        with pytest.raises(UserError, match="unmerge it first"):
            method.drop([0])

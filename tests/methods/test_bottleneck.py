"""What all bottleneck-type methods have: `layers`, and `reduction_factor` as another way to say the bottleneck."""

import pytest
import torch
from tiny import tiny_batch, tiny_model

from peftbench.errors import UserError
from peftbench.methods import METHODS, build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bottleneck import BottleneckConfig, canonical_layers
from peftbench.runs.identity import fingerprint

FOR_TEXTS = {name: cls for name, cls in METHODS.items() if "texts" in cls.modalities}
CLASSES = {name: cls for name, cls in FOR_TEXTS.items() if issubclass(cls.config_class, BottleneckConfig)}


@pytest.mark.parametrize("name", CLASSES)
def test_the_layers_named_and_no_others_carry_an_adapter(name):
    sites = find_sites(tiny_model("bert", num_hidden_layers=4))
    config_class = CLASSES[name].config_class

    def size(layers):
        method = build(config_class(bottleneck=4, layers=layers), sites)
        trained = sum(p.numel() for p in method.parameters())
        assert trained == method.count(method.config, sites)
        return trained

    assert size("2-3") == size("0-1") == size(["1", "3"]) < size(["0-1", "1-2"]) < size("all") == size("0-3")
    one = size("3")
    assert size("2-3") - one == size("1-3") - size("2-3"), "each layer adds as much"


def reached(model, method) -> list[bool]:
    """Tell for each layer whether a backward pass goes through it."""
    sites = find_sites(model)
    seen: dict[int, bool] = {}
    handles = [
        layer.register_forward_hook(
            lambda _m, _a, out, n=n: seen.update({n: (out[0] if type(out) is tuple else out).requires_grad})
        )
        for n, layer in enumerate(sites.layers)
    ]
    with method.on(sites):
        model(**tiny_batch())
    for handle in handles:
        handle.remove()
    return [seen[n] for n in range(len(sites.layers))]


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "mam"])  # whose prefix is in every layer
def test_nothing_below_the_lowest_adapter_is_kept_for_the_backward_pass(name):
    model = tiny_model("bert", num_hidden_layers=3)
    model.requires_grad_(False)
    method = build(CLASSES[name].config_class(bottleneck=4, layers="1-2"), find_sites(model))
    assert reached(model, method) == [False, True, True]


@pytest.mark.parametrize("name", CLASSES)
def test_the_reduction_factor_is_the_bottleneck(name):
    sites, config_class = find_sites(tiny_model("bert")), CLASSES[name].config_class
    by_factor = build(config_class(reduction_factor=7.5), sites)  # 32 / 7.5 = 4.27
    assert [p.shape for p in by_factor.parameters()] == [
        p.shape for p in build(config_class(bottleneck=4), sites).parameters()
    ]
    assert by_factor.count(by_factor.config, sites) == sum(p.numel() for p in by_factor.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "1-2"}, r"method.layers=1-2 is outside of the model: its layers are 0-1"),
        ({"layers": ["0", "7"]}, r"method.layers=\[0,7\] is outside of the model"),
        ({"layers": "0-99999999999999999999"}, r"method.layers=0-9+ is outside of the model"),
        ({"layers": "1-0"}, r"method.layers=1-0 must be all, a range"),
        ({"layers": "top"}, r"method.layers=top must be all, a range"),
        ({"layers": []}, r"method.layers=\[\] must be all, a range"),
        ({"bottleneck": 4, "reduction_factor": 8}, "both say the bottleneck: set one of them"),
        ({"reduction_factor": 0.5}, "method.reduction_factor=0.5 must be 1 or more"),
        ({"reduction_factor": 33}, "method.reduction_factor=33 leaves no bottleneck of the model's width 32"),
        ({"bottleneck": 0}, "method.bottleneck=0 must be 1 or more"),
    ],
)
def test_a_mistake_is_one_line(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        build(AdapterConfig(**settings), find_sites(tiny_model("bert")))
    assert "\n" not in str(caught.value)


def test_one_adapter_before_the_head_is_in_no_layer():
    with pytest.raises(UserError, match="method.position=output is in no layer"):
        AdapterConfig(position="output", layers="1")


def test_norms_train_where_the_adapters_are():
    sites = find_sites(tiny_model("bert"))
    replaced = list(build(AdapterConfig(bottleneck=4, layers="1"), sites).replaced)
    assert len(replaced) == 4 and all("layer/1/" in name for name in replaced)
    assert len(list(build(AdapterConfig(bottleneck=4, layers="0-1"), sites).replaced)) == 10, "the embeddings' too"


def test_runs_from_before_these_settings_keep_their_name():
    groups = {"task": {}, "model": {}, "trainer": {}, "seed": 0}

    def name(**method):
        return fingerprint({**groups, "method": {"name": "adapter", "bottleneck": 64, **method}})

    assert name() == name(layers="all", reduction_factor=None)
    assert len({name(), name(layers="0"), name(reduction_factor=4.0)}) == 3


def test_layers_change_what_the_model_says():
    model = tiny_model("bert")
    sites = find_sites(model)
    before = model(**tiny_batch()).logits
    method = build(AdapterConfig(bottleneck=4, layers="1", init_std=0.5), sites)
    with method.on(sites):
        hidden = model(**tiny_batch(), output_hidden_states=True)
    assert not torch.equal(hidden.logits, before)
    assert torch.equal(hidden.hidden_states[1], model(**tiny_batch(), output_hidden_states=True).hidden_states[1])


@pytest.mark.parametrize(
    ("layers", "one"),
    [
        ("3-5", "3-"), ("3-", "3-"), ("03-05", "3-"), (["3", "4", "5"], "3-"), (["3-4", "4-"], "3-"),
        ("0-", "all"), ("0-5", "all"), (["3-", "0-2"], "all"), ("all", "all"),
        ("5", "5-"), ("5-5", "5-"), ("2-2", "2"), (["1-2"], "1-2"), (["1", "0"], "0-1"),
        (["5", "0-2"], ["0-2", "5"]), (["4-5", "0"], ["0", "4-"]),
        ("late", "late"), (["late", "early"], ["late", "early"]),
        ("3-6", "3-6"), ("9", "9"), ("0-99999999999999", "0-99999999999999"),
    ],
)  # fmt: skip
def test_equal_layers_have_one_spelling(layers, one):
    assert canonical_layers(layers, 6) == one
    assert canonical_layers(one, 6) == one

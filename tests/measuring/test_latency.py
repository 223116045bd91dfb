import json
import time
from types import SimpleNamespace

import pytest
import torch
from operations import Operations
from tiny import headed, method_configs, tiny_batch, tiny_model

from peftbench.config.schema import MeasureConfig
from peftbench.errors import UserError
from peftbench.measuring import latency
from peftbench.measuring.latency import compare, measure_latency, ratio_with_interval
from peftbench.methods import Method, build
from peftbench.methods.head import HeadConfig
from peftbench.methods.lora import LoraConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

QUICK = MeasureConfig(latency=True, seconds=0.02, batches=[1, 3], lengths=[8, 16])
BRIEF = MeasureConfig(latency=True, seconds=0, batches=[2], lengths=[8])
INTERVALS = ("ratio", "noise", "merged_ratio")


@pytest.fixture(autouse=True)
def one_thread():
    """Other processes on the machine then disturb least."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def backbone_of(architecture="bert"):
    return headed(tiny_model(architecture))


def shaken(config, sites):
    method = build(config, sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return method


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet", "deberta-v2", "distilbert"])
def test_structure(architecture):
    backbone = backbone_of(architecture)
    result = measure_latency(shaken(LoraConfig(rank=2), backbone.sites), backbone, QUICK)
    json.dumps(result)
    assert [(s["batch"], s["length"]) for s in result["settings"]] == [(1, 8), (1, 16), (3, 8), (3, 16)]
    for setting in result["settings"]:
        for variant in ("base_ms", "method_ms", "merged_ms"):
            summary = setting[variant]
            assert 0 < summary["median"] <= summary["p90"] and summary["n"] >= 5 and "p99" not in summary
        for name in INTERVALS:
            assert 0 < setting[f"{name}_low"] <= setting[name] <= setting[f"{name}_high"]
        for variant in ("base", "method"):
            seconds = setting[f"{variant}_ms"]["median"] / 1000
            assert setting[f"{variant}_throughput"] == pytest.approx(setting["batch"] / seconds)
    assert 0 < result["merge_difference"] < 1e-4
    assert result["device"] == "cpu" and result["precision"] == "fp32" and result["threads"] == 1
    assert result["compile"] is False and result["attention"] == backbone.model.config._attn_implementation


def test_a_method_that_does_nothing_costs_nothing():
    backbone = backbone_of()
    config = MeasureConfig(latency=True, seconds=0.5, batches=[1], lengths=[16])
    result = measure_latency(build(HeadConfig(), backbone.sites), backbone, config)
    (setting,) = result["settings"]
    assert 0.7 < setting["ratio"] < 1.4
    assert 0.7 < setting["noise"] < 1.4
    assert result["merge_difference"] is None and "merged_ratio" not in setting


class FourTimes(Method):
    """Lets the encoder compute four times what it does."""

    def hook(self, sites):
        def compute(module, args, kwargs):
            for _ in range(3):
                module.forward(*args, **kwargs)

        yield sites.base.register_forward_pre_hook(compute, with_kwargs=True)

    @staticmethod
    def count(config, sites):
        return 0


def test_a_slow_method_shows(monkeypatch):
    backbone = backbone_of()
    with Operations() as operations:
        monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: operations.count))
        (setting,) = measure_latency(FourTimes(None, backbone.sites), backbone, BRIEF)["settings"]
    assert 3 < setting["ratio_low"] <= setting["ratio"] < 4  # the head answers once
    assert setting["noise"] == 1
    assert setting["method_ms"]["median"] > 3 * setting["base_ms"]["median"]


@pytest.mark.parametrize("name", sorted(method_configs()))
@pytest.mark.parametrize("attached", [True, False])
def test_everything_is_left_as_found(name, attached):
    backbone = backbone_of()
    model, sites = backbone.model, backbone.sites
    method = shaken(method_configs()[name], sites)
    if attached:
        method.attach(sites)
    before = model(**tiny_batch()).logits
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    model.train()
    backbone.sites.layers[0].eval()
    modes = [m.training for m in model.modules()]
    result = measure_latency(method, backbone, BRIEF)
    assert result["attention"] == "sdpa", "the model's own, not what prefix tuning puts in its place"
    assert method.attached == attached and method.training
    assert [m.training for m in model.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    model.eval()
    assert torch.equal(model(**tiny_batch()).logits, before)


def test_a_merged_method_is_left_merged():
    backbone = backbone_of()
    method = shaken(LoraConfig(rank=2), backbone.sites)
    method.attach(backbone.sites)
    method.merge()
    merged = backbone.model(**tiny_batch()).logits
    assert measure_latency(method, backbone, QUICK)["merge_difference"] > 0
    assert torch.equal(backbone.model(**tiny_batch()).logits, merged)
    weight = backbone.sites.at("attention.query")[0].weight.clone()
    method.unmerge()
    assert not torch.equal(backbone.sites.at("attention.query")[0].weight, weight), "it was merged still"


def test_the_method_comes_back_after_an_error():
    backbone = backbone_of()
    method = shaken(LoraConfig(rank=2), backbone.sites)
    method.attach(backbone.sites)
    before = backbone.model(**tiny_batch()).logits
    handle = backbone.sites.base.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_latency(method, backbone, QUICK)
    handle.remove()
    assert method.attached and torch.equal(backbone.model(**tiny_batch()).logits, before)


@pytest.mark.parametrize("config", [PrefixConfig(length=10), PromptConfig(length=10)])
def test_lengths_that_no_longer_fit_are_skipped(config):
    backbone = backbone_of()  # 66 positions
    lengths = MeasureConfig(latency=True, seconds=0, batches=[1], lengths=[56, 57, 64])
    result = measure_latency(build(config, backbone.sites), backbone, lengths)
    assert [s["length"] for s in result["settings"]] == [56]


def test_no_length_that_fits_is_an_error_and_no_empty_result():
    backbone = backbone_of()  # 66 positions
    lengths = MeasureConfig(latency=True, seconds=0, batches=[1], lengths=[57, 1000])
    with pytest.raises(UserError, match=r"measure.lengths=\[57, 1000\]: the model takes at most 56 tokens"):
        measure_latency(build(PrefixConfig(length=10), backbone.sites), backbone, lengths)


def test_compare_interleaves_in_rotating_order():
    calls = []
    prepared = []

    def step(name):
        calls.append(name)
        time.sleep(0.06)  # longer than what is called twice for warm caches

    functions = {name: (lambda name=name: step(name)) for name in "abc"}
    synchronised = []
    times = compare(functions, 0, 3, lambda: synchronised.append(1), before=prepared.append)
    assert calls == list("abc" + "abc" + "bca" + "cab"), "a warm-up, then three rounds"
    assert prepared == calls
    assert len(synchronised) == 2 * len(calls)
    assert all(len(series) == 3 and min(series) >= 0.06 for series in times.values())


def test_compare_keeps_to_its_seconds():
    started = time.perf_counter()
    times = compare({"a": lambda: time.sleep(0.001)}, 0.2, 5, lambda: None)
    assert 0.2 <= time.perf_counter() - started < 1.5
    assert len(times["a"]) > 5


def test_ratio_with_interval():
    assert ratio_with_interval([2.0] * 9, [1.0] * 9) == (2, 2, 2)
    drift = [1.0, 5.0, 2.0, 9.0, 3.0]  # the machine slows down for both alike: pairing cancels it
    assert ratio_with_interval([1.1 * x for x in drift], drift) == pytest.approx((1.1, 1.1, 1.1))
    ratio, low, high = ratio_with_interval([1, 2, 3, 4, 5, 6, 7, 8, 9], [1] * 9)
    assert ratio == 5 and 1 <= low < 5 < high <= 9
    assert ratio_with_interval([3.0], [2.0]) == (1.5, 1.5, 1.5)

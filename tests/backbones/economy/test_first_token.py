"""Sparing the last layer's unread tokens leaves logits and gradients as they are, on every architecture."""

import pytest
import torch
from tiny import ARCHITECTURES, IMAGE_ARCHITECTURES, tiny_batch, tiny_inputs, tiny_model

from peftbench.backbones.economy.first_token import FirstTokenOnly, head_reads_first_token
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.convpass import ConvpassConfig
from peftbench.methods.fact import FactConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.fusion import FusionConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig
from peftbench.methods.ssf import SsfConfig
from peftbench.methods.vpt import VptConfig

CONFIGS = {
    "adapter": AdapterConfig(bottleneck=4, position="every"),
    "adapter-output": AdapterConfig(bottleneck=4, position="output"),
    "pfeiffer": PfeifferConfig(bottleneck=4),
    "fusion": FusionConfig(runs={"a": "a", "b": "b"}),
    "parallel": ParallelConfig(bottleneck=4),
    "ia3": Ia3Config(targets=["all"]),
    "lora": LoraConfig(rank=2, targets=["all"]),
    "dora": LoraConfig(rank=2, targets=["all"], dora=True),
    "prefix": PrefixConfig(length=3),
    "prompt": PromptConfig(length=3),
    "bitfit": BitfitConfig(),
    "full": FullConfig(),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("padded", [True, False])
def test_logits_and_gradients_stay(architecture, name, padded):
    model = tiny_model(architecture)
    sites = find_sites(model)
    assert head_reads_first_token(sites)
    if (architecture, name) == ("modernbert", "bitfit"):
        pytest.skip("it has no biases")
    method = build(CONFIGS[name], sites)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    results = []
    with method.on(sites):
        for spared in (False, True):
            if spared and not method.keeps_first_token:
                pytest.skip("this method and architecture need every row")
            first = FirstTokenOnly(sites) if spared else None
            method.zero_grad()
            logits = model(**tiny_batch(padded)).logits
            (logits**2).sum().backward()
            results.append((logits.detach(), {n: p.grad.clone() for n, p in _with_grad(method)}))
            if first is not None:
                first.remove()
    (logits, gradients), (logits_spared, gradients_spared) = results
    torch.testing.assert_close(logits_spared, logits, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == gradients_spared.keys()
    scale = max(g.abs().max() for g in gradients.values())
    for parameter, gradient in gradients.items():
        assert (gradients_spared[parameter] - gradient).abs().max() < 1e-5 * scale, parameter


def _with_grad(method):
    return [(n, p) for n, p in method.named_parameters() if p.grad is not None]


def test_it_spares_the_tokens():
    model = tiny_model("bert")
    sites = find_sites(model)
    shapes = []
    handle = sites.at("ffn.up")[-1].module.register_forward_hook(lambda m, args, out: shapes.append(out.shape[1]))
    first = FirstTokenOnly(sites)
    model(**tiny_batch())
    first.remove()
    model(**tiny_batch())
    handle.remove()
    assert shapes == [1, 12]


def test_a_head_that_reads_every_row_is_noticed():
    model = tiny_model("roberta")
    sites = find_sites(model)
    classifier = model.classifier
    plain = classifier.forward
    classifier.forward = lambda features, **kwargs: plain(features.mean(dim=1, keepdim=True), **kwargs)
    assert not head_reads_first_token(sites)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_heads_on_a_mean_of_patches_read_every_row():
    read = {name for name in IMAGE_ARCHITECTURES if head_reads_first_token(find_sites(tiny_model(name)))}
    assert read == {"vit", "deit"}


IMAGE_CONFIGS = {
    **{name: config for name, config in CONFIGS.items() if name != "prompt"},
    "convpass": ConvpassConfig(bottleneck=4),
    "fact": FactConfig(rank=4),
    "ssf": SsfConfig(),
    "vpt": VptConfig(length=3),
}


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["vit", "deit"])
def test_logits_of_images_stay(architecture):
    model = tiny_model(architecture)
    sites = find_sites(model)
    for name, config in IMAGE_CONFIGS.items():
        method = build(config, sites)
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        with method.on(sites):
            whole = model(**tiny_inputs(architecture)).logits
            first = FirstTokenOnly(sites)
            spared = model(**tiny_inputs(architecture)).logits
            first.remove()
        assert method.keeps_first_token
        torch.testing.assert_close(spared, whole, rtol=1e-3, atol=1e-4, msg=name)

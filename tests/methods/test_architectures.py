"""Every method on every architecture: acts, trains, detaches without a trace, counts what it says."""

from itertools import product

import pytest
import torch
from tiny import (
    ARCHITECTURES,
    EVERY_ARCHITECTURE,
    IMAGE_ARCHITECTURES,
    method_configs,
    tiny_batch,
    tiny_inputs,
    tiny_model,
)

from peftbench.errors import UserError
from peftbench.methods import build, find_sites
from peftbench.methods.adapter import POSITIONS, AdapterConfig
from peftbench.methods.adaptformer import AdaptformerConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.convpass import ConvpassConfig
from peftbench.methods.fact import FactConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.mam import MamConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig
from peftbench.methods.ssf import SsfConfig
from peftbench.methods.vpt import VptConfig

CONFIGS = method_configs() | {
    **{f"adapter-{position}": AdapterConfig(bottleneck=4, position=position) for position in POSITIONS},
    "adapter-alone": AdapterConfig(bottleneck=4, train_layer_norm=False),
    "compacter++": CompacterConfig(bottleneck=8, rank=2, position="ffn", train_layer_norm=False),
    "fact-tk": FactConfig(rank=4, form="tk"),
    "ia3-all": Ia3Config(targets=["all"]),
    "lora-all": LoraConfig(rank=2, targets=["all"]),
    "dora": LoraConfig(rank=2, targets=["all"], dora=True),
    "rslora": LoraConfig(rank=4, rslora=True),
    "parallel-learned": ParallelConfig(bottleneck=4, learn_scale=True),
    "mam-flat": MamConfig(bottleneck=4, length=3, reparametrize=False),
    "prefix-short": PrefixConfig(length=3),
    "prefix-network": PrefixConfig(length=3, reparametrize=True, mid_dim=6),
    "prompt-front": PromptConfig(length=3, insert="front"),
    "prompt-uniform": PromptConfig(length=3, init="uniform"),
}


IMAGE_CONFIGS = {name: config for name, config in CONFIGS.items() if not name.startswith("prompt")} | {
    "vpt": VptConfig(length=3),
    "vpt-shallow": VptConfig(length=3, deep=False),
    "vpt-projection": VptConfig(length=3, projection=5),
    "convpass": ConvpassConfig(),
    "adaptformer-prompts": AdaptformerConfig(bottleneck=4, prompts=3),
}


def _shake(method):
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)


def _snapshot(model):
    return {name: p.clone() for name, p in model.state_dict().items()}


CASES = [*product(ARCHITECTURES, CONFIGS), *product(IMAGE_ARCHITECTURES, IMAGE_CONFIGS)]


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_method_on_architecture(architecture, name):
    config = (CONFIGS if architecture in ARCHITECTURES else IMAGE_CONFIGS)[name]
    model = tiny_model(architecture)
    sites = find_sites(model)
    inputs = tiny_inputs(architecture)
    before, weights, names = model(**inputs).logits, _snapshot(model), list(model.state_dict())
    implementation = model.config._attn_implementation
    if (architecture, name) == ("modernbert", "bitfit"):
        with pytest.raises(UserError, match="has no biases"):
            build(config, sites)
        return
    if architecture == "data2vec-vision" and name.startswith(("prefix", "mam")):
        with pytest.raises(UserError, match="a prefix cannot reach the attention of Data2VecVisionModel"):
            build(config, sites).attach(sites)
        return

    method = build(config, sites)
    assert sum(p.numel() for p in method.parameters()) == method.count(config, sites)
    _shake(method)
    method.attach(sites)
    logits = model(**inputs).logits
    assert list(model.state_dict()) == names, "the backbone's names stay"
    if name != "head":
        assert (logits - before).abs().max() > 1e-4, "the method acts"
        logits.sum().backward()
        unused = [n for n, p in method.named_parameters() if p.grad is None]
        assert not [n for n in unused if not _outside_of_the_graph(n)], unused

    method.detach()
    assert torch.equal(model(**inputs).logits, before)
    assert all(torch.equal(p, weights[n]) for n, p in model.state_dict().items())
    assert model.config._attn_implementation == implementation
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def _outside_of_the_graph(name: str) -> bool:
    """What the classifier does not read gets none: poolers, CLIP's last norm, the token of masked patches."""
    return any(part in name for part in ("pooler", "post_layernorm", "mask_token", ".head/"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_does_not_change_a_row(architecture):
    """A row alone, without padding or mask, scores as it does inside a padded batch."""
    model = tiny_model(architecture)
    sites = find_sites(model)
    batch = tiny_batch()
    prompts = PromptConfig(length=3), PromptConfig(length=3, insert="front")
    for config in (PrefixConfig(length=3), MamConfig(length=3), *prompts):
        method = build(config, sites)
        _shake(method)
        with method.on(sites), torch.no_grad():
            together = model(**batch).logits
            alone = model(input_ids=batch["input_ids"][1:2, :5]).logits
        torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-5)


MERGEABLE = {
    "lora": LoraConfig(rank=3, targets=["all"]),
    "dora": LoraConfig(rank=3, targets=["all"], dora=True),
    "ssf": SsfConfig(),
    "fact": FactConfig(rank=4),
    "fact-tk": FactConfig(rank=4, form="tk"),
}


@pytest.mark.parametrize("architecture", EVERY_ARCHITECTURE)
@pytest.mark.parametrize("name", MERGEABLE)
def test_merge_and_unmerge(architecture, name):
    model = tiny_model(architecture)
    sites = find_sites(model)
    inputs = tiny_inputs(architecture)
    before = _snapshot(model)
    method = build(MERGEABLE[name], sites)
    _shake(method)
    with method.on(sites), torch.no_grad():
        apart = model(**inputs).logits
        method.merge()
        merged = model(**inputs).logits
        method.merge()
        assert torch.equal(model(**inputs).logits, merged), "merging twice is merging once"
        method.unmerge()
        assert torch.equal(model(**inputs).logits, apart)
        method.merge()
    torch.testing.assert_close(merged, apart, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())


def test_methods_are_switched_on_one_backbone():
    model = tiny_model("bert")
    sites = find_sites(model)
    methods = [build(config, sites) for config in (LoraConfig(), PrefixConfig(), CONFIGS["bitfit"])]
    first = []
    for method in methods:
        _shake(method)
        with method.on(sites):
            first.append(model(**tiny_batch()).logits)
    for method, expected in reversed(list(zip(methods, first, strict=True))):
        with method.on(sites):
            assert torch.equal(model(**tiny_batch()).logits, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_leaving_the_prompt_s_last_rows_out_changes_no_logit(architecture):
    """Under a head the prompt's rows end behind the last attention; the bare encoder returns them all."""
    model = tiny_model(architecture)
    sites, bare = find_sites(model), find_sites(model.base_model)
    prompt = build(PromptConfig(length=3), sites)
    _shake(prompt)
    with torch.no_grad():
        with prompt.on(sites):
            spared = model(**tiny_batch(), output_hidden_states=True)
        with prompt.on(bare):
            whole = model(**tiny_batch(), output_hidden_states=True)
    assert (spared.hidden_states[-1].shape[1], whole.hidden_states[-1].shape[1]) == (12, 15)
    torch.testing.assert_close(spared.logits, whole.logits, rtol=1e-4, atol=1e-5)

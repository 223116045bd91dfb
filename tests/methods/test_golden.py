"""Forward and gradients against peer libraries' tensors on the same weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from peftbench.methods import Method, Sites, build, find_sites
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.mam import MamConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

Tensors = dict[str, torch.Tensor]


class Golden:
    """One reference: the plain model, the peer's tensors, the inputs and the expected results."""

    def __init__(self, folder: Path, name: str, attention: str, dtype: torch.dtype):
        self.tensors = load_file(folder / f"{name}.safetensors")
        described = json.loads((folder / f"{name}.json").read_text())
        self.dtype = dtype
        config = BertConfig(**described["model_config"], attn_implementation=attention)
        self.model = BertModel(config)
        missing = self.model.load_state_dict(self.part("base."), strict=False).missing_keys
        assert not [key for key in missing if "position_ids" not in key and "token_type_ids" not in key]
        self.model.to(dtype).eval()
        self.sites = find_sites(self.model)
        self.inputs = {k: self.tensors[k] for k in ("input_ids", "attention_mask", "token_type_ids")}

    def part(self, prefix: str) -> Tensors:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    @property
    def adapter(self) -> Tensors:
        return self.part("adapter.")

    def gradients(self, loss: str) -> Tensors:
        return self.part(f"{'grad64' if self.dtype == torch.float64 else 'grad'}_{loss}.")

    @property
    def hidden(self) -> torch.Tensor:
        return self.tensors["last_hidden_state_f64" if self.dtype == torch.float64 else "last_hidden_state"]

    def close(self, ours: torch.Tensor, theirs: torch.Tensor) -> None:
        tolerance = 1e-10 if self.dtype == torch.float64 else 1e-5
        scale = theirs.abs().max()
        assert (ours - theirs).abs().max() <= tolerance * scale


@pytest.fixture(params=["float32-sdpa", "float32-eager", "float64-eager"])
def golden(request, golden_dir):
    dtype, attention = request.param.split("-")
    return lambda name: Golden(golden_dir, name, attention, getattr(torch, dtype))


def _check(golden: Golden, method: Method, names: dict[str, str | list[str]], reshape=None) -> None:
    """Copy the peer's tensors in by `names` (ours → theirs, several in a stack), then compare output and gradients."""
    reshape = reshape or (lambda ours, theirs: theirs)

    def peer(tensors: Tensors, names: str | list[str]) -> torch.Tensor:
        return tensors[names] if isinstance(names, str) else torch.stack([tensors[name] for name in names])

    own = dict(method.named_parameters())
    assert set(own) == set(names), "every tensor of ours has its peer"
    with torch.no_grad():
        for ours, theirs in names.items():
            own[ours].copy_(reshape(ours, peer(golden.adapter, theirs)))
    method.to(golden.dtype)
    before = golden.model(**golden.inputs).last_hidden_state
    with method.on(golden.sites):
        hidden = golden.model(**golden.inputs).last_hidden_state
        golden.close(hidden, golden.hidden)
        (hidden**2).sum().backward()
    expected = golden.gradients("sumsq")
    for ours, theirs in names.items():
        golden.close(own[ours].grad, reshape(ours, peer(expected, theirs)))
    assert torch.equal(before, golden.model(**golden.inputs).last_hidden_state), "detach leaves no trace"


def _build(config, sites: Sites, dtype: torch.dtype) -> Method:
    return build(config, sites).to(dtype)


def test_houlsby_order(golden):
    g = golden("ad_double_seq_bn")
    config = AdapterConfig(bottleneck=8, activation="swish", train_layer_norm=False)
    method = _build(config, g.sites, g.dtype)
    names = {}
    for layer in range(2):
        for site, place in (("attention_residual", "attention.output"), ("ffn_residual", "output")):
            ours = f"bottlenecks.{site}.{layer}"
            theirs = f"encoder.layer.{layer}.{place}.adapters.a.adapter"
            names |= {
                f"{ours}.down_weight": f"{theirs}_down.0.weight",
                f"{ours}.down_bias": f"{theirs}_down.0.bias",
                f"{ours}.up_weight": f"{theirs}_up.weight",
                f"{ours}.up_bias": f"{theirs}_up.bias",
            }
    _check(g, method, names)


BEHIND_FFN = {
    f"bottlenecks.{layer}.{ours}": f"encoder.layer.{layer}.output.adapters.a.{theirs}"
    for layer in range(2)
    for ours, theirs in {
        "down_weight": "adapter_down.0.weight",
        "down_bias": "adapter_down.0.bias",
        "up_weight": "adapter_up.weight",
        "up_bias": "adapter_up.bias",
    }.items()
}


def test_pfeiffer_order(golden):
    g = golden("ad_seq_bn")
    _check(g, _build(PfeifferConfig(bottleneck=8), g.sites, g.dtype), BEHIND_FFN)


def test_parallel(golden):
    g = golden("ad_par_bn")
    _check(g, _build(ParallelConfig(bottleneck=8, scale=4), g.sites, g.dtype), BEHIND_FFN)


def test_a_learned_scale_begins_as_the_fixed_one(golden):
    """Its gradient is that of the update's weight and bias, for the loss depends on scale · update alone."""
    g = golden("ad_par_bn")
    method = _build(ParallelConfig(bottleneck=8, scale=4, learn_scale=True), g.sites, g.dtype)
    own = dict(method.named_parameters())
    with torch.no_grad():
        for ours, theirs in BEHIND_FFN.items():
            own[ours].copy_(g.adapter[theirs])
    with method.on(g.sites):
        hidden = g.model(**g.inputs).last_hidden_state
        g.close(hidden, g.hidden)
        (hidden**2).sum().backward()
    expected = g.gradients("sumsq")
    for layer in range(2):
        up = [(own[name], expected[BEHIND_FFN[name]]) for name in own if name.startswith(f"bottlenecks.{layer}.up")]
        along = sum((tensor * gradient).sum() for tensor, gradient in up)
        torch.testing.assert_close(own[f"scales.{layer}"].grad, along / 4, rtol=1e-4, atol=1e-4)


def test_compacter(golden):
    g = golden("ad_compacter_n4")
    config = CompacterConfig(bottleneck=8, activation="gelu", train_layer_norm=False)
    method = _build(config, g.sites, g.dtype)
    places = [
        f"encoder.layer.{layer}.{place}.adapters.a.adapter"
        for place in ("attention.output", "output")
        for layer in range(2)
    ]
    names = {
        f"{way}.{ours}": [f"{place}_{which}.{theirs}" for place in places]
        for way, which in (("down", "down.0"), ("up", "up"))
        for ours, theirs in (("left", "W_left"), ("right", "W_right"))
    }
    biases = {
        f"{way}.biases.{index}": f"{place}_{which}.b"
        for way, which in (("down", "down.0"), ("up", "up"))
        for index, place in enumerate(places)
    }
    _check(g, method, names | biases | {"rule": "shared_parameters.a.phm_rule"})
    method.requires_grad_(False)
    with method.on(g.sites):  # the factors multiplied out
        g.close(g.model(**g.inputs).last_hidden_state, g.hidden)


def test_lora_query_value(golden):
    g = golden("ad_lora_qv")
    method = _build(LoraConfig(rank=4, alpha=8), g.sites, g.dtype)
    names = {
        f"updates.{which}.{layer}.{ab}": f"encoder.layer.{layer}.attention.self.{which}.loras.a.lora_{ab.upper()}"
        for layer in range(2)
        for which in ("query", "value")
        for ab in "ab"
    }
    _check(g, method, names)


def test_ia3_as_peft_places_it(golden):
    """Its default for BERT scales what enters the attention's output map too: `output.dense` fits both."""
    g = golden("peft_ia3")
    method = _build(Ia3Config(targets=["key", "value", "output", "down"]), g.sites, g.dtype)
    names = {
        f"factors.{short}.{layer}": f"base_model.model.encoder.layer.{layer}.{PEFT_PLACES[short]}.ia3_l.default"
        for short in ("key", "value", "output", "down")
        for layer in range(2)
    }
    _check(g, method, names, lambda ours, theirs: theirs.flatten())
    with method.on(g.sites), torch.no_grad():
        method.merge()
        g.close(g.model(**g.inputs).last_hidden_state, g.hidden)


def test_ia3_as_adapterhub_places_it(golden):
    """It scales before the activation, where the paper (§3.3) and our default scale behind it."""
    g = golden("ad_ia3")
    method = _build(Ia3Config(targets=["key", "value", "up"]), g.sites, g.dtype)
    names = {
        f"factors.{short}.{layer}": f"encoder.layer.{layer}.{PEFT_PLACES[short]}.loras.a.lora_B"
        for short in ("key", "value", "up")
        for layer in range(2)
    }
    _check(g, method, names, lambda ours, theirs: theirs.flatten())


PEFT_PLACES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}


def test_lora_all_linear_maps(golden):
    g = golden("peft_lora_all")
    method = _build(LoraConfig(rank=4, alpha=8, targets=["all"]), g.sites, g.dtype)
    names = {
        f"updates.{short}.{layer}.{ab}": (
            f"base_model.model.encoder.layer.{layer}.{place}.lora_{ab.upper()}.default.weight"
        )
        for layer in range(2)
        for short, place in PEFT_PLACES.items()
        for ab in "ab"
    }
    _check(g, method, names)


def test_merged_lora_gives_the_peer_output(golden):
    g = golden("peft_lora_all")
    method = _build(LoraConfig(rank=4, alpha=8, targets=["all"]), g.sites, g.dtype)
    with torch.no_grad():
        for short, place in PEFT_PLACES.items():
            for layer in range(2):
                update = method.updates[short][layer]
                theirs = f"base_model.model.encoder.layer.{layer}.{place}.lora_"
                update.a.copy_(g.adapter[theirs + "A.default.weight"])
                update.b.copy_(g.adapter[theirs + "B.default.weight"])
    weights = {name: p.clone() for name, p in g.model.state_dict().items()}
    with method.on(g.sites), torch.no_grad():
        method.merge()
        g.close(g.model(**g.inputs).last_hidden_state, g.hidden)
        method.unmerge()
        assert all(torch.equal(p, weights[name]) for name, p in g.model.state_dict().items())
        g.close(g.model(**g.inputs).last_hidden_state, g.hidden)


def test_flat_prefix(golden):
    g = golden("ad_prefix_flat")
    method = _build(PrefixConfig(length=5), g.sites, g.dtype)
    theirs = "encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.a.self_prefix.control_trans"

    def reshape(ours, tensor):  # the peer keeps one flat vector: length, (layer, key or value), d
        return tensor.view(5, 2, 2, 32).permute(1, 2, 0, 3)

    _check(g, method, {"direct": theirs}, reshape)


def test_reparametrised_prefix_and_its_folded_form(golden):
    g = golden("ad_prefix_mlp")
    method = _build(PrefixConfig(length=5, reparametrize=True, mid_dim=16), g.sites, g.dtype)
    theirs = "encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.a.self_prefix"
    names = {"embedding": f"{theirs}.wte.weight"} | {
        f"network.{i}.{leaf}": f"{theirs}.control_trans.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")
    }
    _check(g, method, names)
    config, tensors = method.exported()
    folded = _build(config, g.sites, g.dtype)
    folded.load_state_dict(tensors)
    with folded.on(g.sites), torch.no_grad():
        g.close(g.model(**g.inputs).last_hidden_state, g.hidden)


def test_mam(golden):
    g = golden("ad_mam")
    config = MamConfig(bottleneck=8, scale=4, length=5, mid_dim=16)
    peer = "encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.a.self_prefix"
    names = {"prefix.embedding": f"{peer}.wte.weight"} | {
        f"prefix.network.{i}.{leaf}": f"{peer}.control_trans.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")
    }
    names |= {f"parallel.{ours}": theirs for ours, theirs in BEHIND_FFN.items()}
    _check(g, _build(config, g.sites, g.dtype), names)


def test_peft_reparametrised_prefix_agrees_once_positions_are_its_own(golden):
    """`peft` hands the prefix over as past keys, so that transformers counts the text's positions from 5 on."""
    g = golden("peft_prefix_mlp")
    positions = torch.arange(5, 5 + g.inputs["input_ids"].shape[1])[None].expand(3, -1)
    g.inputs |= {"position_ids": positions, "token_type_ids": torch.zeros_like(positions)}
    method = _build(PrefixConfig(length=5, reparametrize=True, mid_dim=16), g.sites, g.dtype)
    names = {"embedding": "prompt_encoder.default.embedding.weight"} | {
        f"network.{i}.{leaf}": f"prompt_encoder.default.transform.{i}.{leaf}"
        for i in (0, 2)
        for leaf in ("weight", "bias")
    }
    _check(g, method, names)
    config, tensors = method.exported()
    folded = _build(config, g.sites, g.dtype)
    folded.load_state_dict(tensors)
    with folded.on(g.sites), torch.no_grad():
        g.close(g.model(**g.inputs).last_hidden_state, g.hidden)


def test_prompt_after_first_token(golden):
    g = golden("ad_prompt_after_bos")
    method = _build(PromptConfig(length=5, init="uniform"), g.sites, g.dtype)
    _check(g, method, {"vectors": "prompt_tuning.prompt_tunings.a.prompt_embedding.weight"})


def test_peft_prompt_agrees_once_positions_and_norm_are_its_own(golden):
    """`peft` puts the prompt in before the embeddings' layer norm, at positions 0 … 4, the text behind it."""
    g = golden("peft_prompt")
    method = _build(PromptConfig(length=5, init="uniform", insert="front"), g.sites, g.dtype)
    peer = g.adapter["prompt_encoder.default.embedding.weight"].to(g.dtype)[None]
    with torch.no_grad():
        method.vectors.copy_(g.model.embeddings(inputs_embeds=peer)[0])
        positions = torch.arange(5, 5 + g.inputs["input_ids"].shape[1])[None].expand(3, -1)
        with method.on(g.sites):
            inputs = g.inputs | {"position_ids": positions, "token_type_ids": torch.zeros_like(positions)}
            hidden = g.model(**inputs).last_hidden_state
    g.close(hidden, g.hidden[:, 5:])

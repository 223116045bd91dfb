"""Forward and gradients on images against peer libraries' and original implementations' tensors on the same weights."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional as F

from peftbench.methods import Method, build, find_sites
from peftbench.methods.adaptformer import AdaptformerConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.ssf import SsfConfig
from peftbench.methods.vpt import VptConfig

Tensors = dict[str, torch.Tensor]
LAYERS = range(3)


class Golden:
    """One reference: the plain classifier, the peer's tensors, the images and the expected results."""

    def __init__(self, folder: Path, name: str, dtype: torch.dtype):
        self.tensors = load_file(folder / "vision" / f"{name}.safetensors")
        described = json.loads((folder / "vision" / f"{name}.json").read_text())
        self.dtype = dtype
        model_class = getattr(transformers, described["model_class"])
        numbers = described["model_config"] | {"num_labels": described["num_labels"], "attn_implementation": "sdpa"}
        self.model = model_class(model_class.config_class(**numbers))
        self.model.load_state_dict(self.part("base."))
        self.model.to(dtype).eval()
        self.pixels = self.tensors["pixel_values"].to(dtype)

    def part(self, prefix: str) -> Tensors:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    @property
    def double(self) -> bool:
        return self.dtype == torch.float64

    def expected(self, name: str) -> torch.Tensor:
        return self.tensors[f"{name}_f64" if self.double else name]

    def gradients(self, loss: str) -> Tensors:
        return self.part(f"{'grad64' if self.double else 'grad'}_{loss}.")

    def close(
        self, ours: torch.Tensor, theirs: torch.Tensor, what: str = "", whole: torch.Tensor | None = None
    ) -> None:
        """Compare relative to the largest value, of `whole` where ours is a part of that."""
        largest = (theirs if whole is None else whole).abs().max()
        assert (ours - theirs).abs().max() <= (1e-10 if self.double else 1e-5) * largest, what

    def check(self, config, names: dict[str, str | list[str]], reshape=lambda ours, theirs: theirs) -> Method:
        """Copy the peer's tensors in by `names` (ours → theirs, several in a stack), then compare all results."""

        def peer(tensors: Tensors, names: str | list[str]) -> torch.Tensor:
            return tensors[names] if isinstance(names, str) else torch.stack([tensors[name] for name in names])

        headed, bare = find_sites(self.model), find_sites(self.model.base_model)
        method = build(config, headed)
        own = dict(method.named_parameters())
        assert set(own) == set(names), "every tensor of ours has its peer"
        adapter = self.part("adapter.")
        with torch.no_grad():
            for ours, theirs in names.items():
                own[ours].copy_(reshape(ours, peer(adapter, theirs)))
        method.to(self.dtype)

        def compare(loss: str) -> None:
            gradients = self.gradients(loss)
            for ours, theirs in names.items():
                whole = peer(gradients, theirs)
                self.close(own[ours].grad, reshape(ours, whole), f"{loss} {ours}", whole)
            method.zero_grad()

        if "last_hidden_state" in self.tensors:
            with method.on(bare):
                for loss in ("sumsq", "R"):
                    hidden = self.model.base_model(self.pixels).last_hidden_state
                    self.close(hidden, self.expected("last_hidden_state"))
                    weighted = hidden if loss == "sumsq" else self.tensors["R"].to(self.dtype)
                    (hidden * weighted).sum().backward()
                    compare(loss)
        with method.on(headed):
            logits = self.model(self.pixels).logits
            self.close(logits, self.expected("logits"))
            loss = F.cross_entropy(logits, self.tensors["labels"])
            self.close(loss, self.expected("loss"))
            self.model.zero_grad()
            loss.backward()
            compare("ce")
            head = self.gradients("ce")["base.classifier.weight"]
            self.close(self.model.classifier.weight.grad, head, "head")
        return method

    def check_merged(self, method: Method) -> None:
        with method.on(find_sites(self.model)), torch.no_grad():
            method.merge()
            self.close(self.model(self.pixels).logits, self.expected("logits"))


@pytest.fixture(params=["float32", "float64"])
def golden(request, golden_dir):
    return lambda name: Golden(golden_dir, name, getattr(torch, request.param))


PLACES = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "output": "attention.o_proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}


def _lora_names(layers: str, targets) -> dict[str, str]:
    return {
        f"updates.{target}.{layer}.{ab}": (
            f"base_model.model.{layers}.{layer}.{PLACES[target]}.lora_{ab.upper()}.default.weight"
        )
        for target in targets
        for layer in LAYERS
        for ab in "ab"
    }


@pytest.mark.parametrize(
    ("name", "layers", "targets"),
    [
        ("vit_peft_lora_qv", "vit.layers", ["query", "value"]),
        ("vit_peft_lora_all", "vit.layers", list(PLACES)),
        ("deit_peft_lora_all", "deit.layers", list(PLACES)),
        ("dinov2_peft_lora_qv", "dinov2.encoder.layer", ["query", "value"]),
    ],
)
def test_lora(golden, name, layers, targets):
    g = golden(name)
    method = g.check(LoraConfig(rank=4, alpha=8, targets=targets), _lora_names(layers, targets))
    g.check_merged(method)


def test_ia3(golden):
    g = golden("vit_peft_ia3")
    names = {
        f"factors.{target}.{layer}": f"base_model.model.vit.layers.{layer}.{PLACES[target]}.ia3_l.default"
        for target in ("key", "value", "down")
        for layer in LAYERS
    }
    g.check_merged(g.check(Ia3Config(), names, lambda ours, theirs: theirs.flatten()))


def test_ia3_as_adapterhub_places_it(golden):
    """Before the activation, see the text's test."""
    places = {"key": "attention.attention.key", "value": "attention.attention.value", "up": "intermediate.dense"}
    names = {
        f"factors.{target}.{layer}": f"vit.encoder.layer.{layer}.{place}.loras.a.lora_B"
        for target, place in places.items()
        for layer in LAYERS
    }
    config = Ia3Config(targets=["key", "value", "up"])
    golden("vit_ad_ia3").check(config, names, lambda ours, theirs: theirs.flatten())


ADAPTERHUB = {"down": "adapter_down.0", "up": "adapter_up"}


def _bottleneck_names(places: dict[str, str], template: str) -> dict[str, str]:
    return {
        f"bottlenecks.{layer}.{ours}_{leaf}": template.format(layer=layer, place=theirs, leaf=leaf)
        for layer in LAYERS
        for ours, theirs in places.items()
        for leaf in ("weight", "bias")
    }


BEHIND_FFN = "vit.encoder.layer.{layer}.output.output_adapters.adapters.a.{place}.{leaf}"


def test_pfeiffer_reads_the_stream_behind_the_addition(golden):
    golden("vit_ad_seq_bn").check(PfeifferConfig(bottleneck=8), _bottleneck_names(ADAPTERHUB, BEHIND_FFN))


def test_adapterhub_s_parallel_adapter_is_an_adaptformer(golden):
    """It reads in front of the norm, where ours reads behind it as the paper's code does."""
    config = AdaptformerConfig(bottleneck=8, scale=4)
    golden("vit_ad_par_bn").check(config, _bottleneck_names(ADAPTERHUB, BEHIND_FFN))


def test_adaptformer(golden):
    places = {"down": "down_proj", "up": "up_proj"}
    names = _bottleneck_names(places, "blocks.{layer}.adaptmlp.{place}.{leaf}")
    golden("vit_adaptformer_8").check(AdaptformerConfig(bottleneck=8), names)


def test_adaptformer_with_prompts_of_its_own(golden):
    """They stand in front of the class token and are left out behind each layer."""
    places = {"down": "down_proj", "up": "up_proj"}
    names = _bottleneck_names(places, "blocks.{layer}.adaptmlp.{place}.{leaf}")
    names |= {f"prompts.{layer}": f"embeddings.{layer}" for layer in LAYERS}
    config = AdaptformerConfig(bottleneck=8, prompts=2)
    golden("vit_adaptformer_8_vpt2").check(config, names, lambda ours, theirs: theirs.squeeze(0))


def test_flat_prefix(golden):
    theirs = "vit.encoder.layer.0.attention.attention.prefix_tuning.pool.prefix_tunings.a.self_prefix.control_trans"

    def reshape(ours, tensor):  # the peer keeps one flat vector: length, (layer, key or value), d
        return tensor.view(5, 3, 2, 32).permute(1, 2, 0, 3)

    golden("vit_ad_prefix_flat").check(PrefixConfig(length=5), {"direct": theirs}, reshape)


def test_vpt_shallow(golden):
    config = VptConfig(length=5, deep=False)
    golden("vit_vpt_shallow").check(config, {"prompts.0": "transformer.prompt_embeddings"}, _prompts)


VPT_DEEP = {
    "prompts.0": "transformer.prompt_embeddings",
    "prompts.1": "transformer.deep_prompt_embeddings",
    "prompts.2": "transformer.deep_prompt_embeddings",
}


def _prompts(ours: str, theirs: torch.Tensor) -> torch.Tensor:
    if not ours.startswith("prompts."):
        return theirs
    layer = int(ours.removeprefix("prompts."))
    return theirs[max(layer - 1, 0)]


def test_vpt_deep(golden):
    golden("vit_vpt_deep").check(VptConfig(length=5), VPT_DEEP, _prompts)


def test_vpt_deep_with_a_projection(golden):
    projection = {f"projection.{leaf}": f"transformer.prompt_proj.{leaf}" for leaf in ("weight", "bias")}
    golden("vit_vpt_deep_proj").check(VptConfig(length=5, projection=12), VPT_DEEP | projection, _prompts)


SSF_PLACES = {
    "attention/norm": "blocks.{layer}.ssf_{kind}_1",
    "attention/query": "blocks.{layer}.attn.ssf_{kind}_1",
    "attention/key": "blocks.{layer}.attn.ssf_{kind}_1",
    "attention/value": "blocks.{layer}.attn.ssf_{kind}_1",
    "attention/output": "blocks.{layer}.attn.ssf_{kind}_2",
    "ffn/norm": "blocks.{layer}.ssf_{kind}_2",
    "ffn/up": "blocks.{layer}.mlp.ssf_{kind}_1",
    "ffn/down": "blocks.{layer}.mlp.ssf_{kind}_2",
}
FUSED = ("query", "key", "value")


def test_ssf(golden):
    names = {
        f"{kind}s.{place}.{layer}": theirs.format(layer=layer, kind=kind)
        for kind in ("scale", "shift")
        for place, theirs in SSF_PLACES.items()
        for layer in LAYERS
    }
    for kind in ("scale", "shift"):
        names |= {f"{kind}s.patches.0": f"patch_embed.ssf_{kind}_1", f"{kind}s.final/norm.0": f"ssf_{kind}_1"}

    def reshape(ours, theirs):  # the peer's query, key and value are one map
        parts = [index for index, short in enumerate(FUSED) if f"attention/{short}" in ours]
        return theirs.view(3, 32)[parts[0]] if parts else theirs

    g = golden("vit_ssf")
    g.check_merged(g.check(SsfConfig(), names, reshape))


def test_compacter(golden):
    places = [
        f"vit.encoder.layer.{layer}.{name}.adapters.a.adapter"
        for name in ("attention_adapters", "output.output_adapters")
        for layer in LAYERS
    ]
    parts = {"down": "down.0", "up": "up"}
    names: dict[str, str | list[str]] = {
        f"{way}.{ours}": [f"{place}_{part}.{theirs}" for place in places]
        for way, part in parts.items()
        for ours, theirs in (("left", "W_left"), ("right", "W_right"))
    }
    for way, part in parts.items():
        names |= {f"{way}.biases.{index}": f"{place}_{part}.b" for index, place in enumerate(places)}
    g = golden("vit_ad_compacter_n4")
    rule = next(name for name in g.part("adapter.") if "phm_rule" in name)
    config = CompacterConfig(bottleneck=8, activation="gelu", train_layer_norm=False)
    g.check(config, names | {"rule": rule})

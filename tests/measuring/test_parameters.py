"""Counts against published and hand-derived figures, from architecture numbers alone, on the meta device."""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from tiny import headed, method_configs, tiny_model

from peftbench.backbones.heads import HeadedBackbone, add_head
from peftbench.backbones.load import blank_backbone
from peftbench.measuring.parameters import count_parameters
from peftbench.methods import build
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.compacter import CompacterConfig
from peftbench.methods.full import FullConfig
from peftbench.methods.fusion import FusionConfig
from peftbench.methods.head import HeadConfig
from peftbench.methods.ia3 import Ia3Config
from peftbench.methods.lora import LoraConfig
from peftbench.methods.mam import MamConfig
from peftbench.methods.parallel import ParallelConfig
from peftbench.methods.pfeiffer import PfeifferConfig
from peftbench.methods.prefix import PrefixConfig
from peftbench.methods.prompt import PromptConfig

CONF = Path(__file__).parents[2] / "conf" / "model"
BERT_BASE = 109_482_240
HEAD = 1_538  # 2 classes on width 768
NORMS = 38_400  # 25 layer norms of BERT-base
EMBEDDINGS_NORM = 1_536


@cache
def backbone(name: str) -> HeadedBackbone:
    architecture = yaml.safe_load((CONF / f"{name}.yaml").read_text())["architecture"]
    return add_head(blank_backbone(architecture), 2)


def count(config, name="bert_base"):
    with torch.device("meta"):
        method = build(config, backbone(name).sites)
    counts = count_parameters(method, backbone(name))
    assert counts["closed_form"] == counts["method"], "the closed form is what trains"
    return counts


def percent(share: float) -> float:
    return round(100 * share, 4)


# position → m → adapters, their % of the backbone, with the head in % of all, with 25 norms in % of all
PLACEMENTS = {
    ("attention", "ffn"): {
        8: (156_768, 0.1432, 0.1444, 0.1794),
        16: (304_320, 0.2780, 0.2786, 0.3136),
        32: (599_424, 0.5475, 0.5459, 0.5808),
        48: (894_528, 0.8171, 0.8118, 0.8466),
        64: (1_189_632, 1.0866, 1.0763, 1.1110),
    },
    ("both",): {
        8: (313_536, 0.2864, 0.2870, 0.3219),
        16: (608_640, 0.5559, 0.5542, 0.5891),
        32: (1_198_848, 1.0950, 1.0845, 1.1192),
        48: (1_789_056, 1.6341, 1.6092, 1.6437),
        64: (2_379_264, 2.1732, 2.1283, 2.1626),
    },
    ("output",): {
        8: (13_064, 0.0119, 0.0133, 0.0484),
        16: (25_360, 0.0232, 0.0246, 0.0596),
        32: (49_952, 0.0456, 0.0470, 0.0821),
        64: (99_136, 0.0905, 0.0919, 0.1269),
    },
    ("every",): {
        8: (627_072, 0.573, None, None),
        16: (1_217_280, 1.112, None, None),
        32: (2_397_696, 2.190, None, None),
        64: (4_758_528, 4.346, None, None),
    },
}
ROWS = [
    (position, m, *expected)
    for positions, sizes in PLACEMENTS.items()
    for position in positions
    for m, expected in sizes.items()
]


@pytest.mark.parametrize(("position", "m", "adapters", "of_backbone", "with_head", "with_norms"), ROWS)
def test_adapter_by_placement(position, m, adapters, of_backbone, with_head, with_norms):
    bare = count(AdapterConfig(bottleneck=m, position=position, train_layer_norm=False))
    assert (bare["method"], bare["head"], bare["backbone"]) == (adapters, HEAD, BERT_BASE)
    assert bare["total"] == BERT_BASE + adapters + HEAD
    assert percent(bare["share_method"]) == pytest.approx(of_backbone, abs=5e-4 if position == "every" else 1e-9)
    normed = count(AdapterConfig(bottleneck=m, position=position))
    assert normed["method"] == adapters + NORMS
    assert normed["total"] == bare["total"], "a layer norm that trains is no new parameter"
    if with_head is not None:
        assert percent(bare["share_trained"]) == with_head
        assert percent(normed["share_trained"]) == with_norms


def test_official_houlsby_size():
    counts = count(AdapterConfig())
    assert counts["method"] + counts["head"] == 2_419_202


def weights(config) -> int:
    """The parameters of a method on BERT-base that are no biases, as papers often count."""
    with torch.device("meta"):
        method = build(config, backbone("bert_base").sites)
    return sum(p.numel() for name, p in method.named_parameters() if "bias" not in name)


def test_pfeiffer_as_published():
    """UniPELT's 895 k, and AdapterDrop's 884 k, which leave out the biases."""
    assert count(PfeifferConfig())["method"] == count(PfeifferConfig(reduction_factor=16))["method"] == 894_528
    assert weights(PfeifferConfig()) == 884_736
    assert count(PfeifferConfig(layers="5-11"))["method"] == 894_528 * 7 // 12


def test_fusion_as_published():
    """19.4 % of BERT-base however many adapters are fused; they count in the whole, but do not train."""
    alone, of_three = count(FusionConfig()), count(FusionConfig(runs={"a": "a", "b": "b", "c": "c"}))
    assert alone["method"] == of_three["method"] == 21_252_096
    assert round(100 * alone["share_method"], 2) == 19.41
    assert alone["total"] == BERT_BASE + 21_252_096 + HEAD
    assert of_three["total"] == alone["total"] + 3 * 894_528
    lower_half = {"name": "adapter", "train_layer_norm": False, "layers": ["0-5"]}
    assert count(FusionConfig(runs={"a": "a", "b": "b"}, adapter_method=lower_half))["method"] == 21_252_096


@pytest.mark.parametrize(
    ("position", "formula", "with_biases", "with_norms"),
    [("both", 38_080, 57_088, 95_488), ("ffn", 19_072, 28_576, 66_976)],
    ids=["Compacter", "Compacter++"],
)
def test_compacter(position, formula, with_biases, with_norms):
    """The paper's formula leaves out the biases, its percentages count biases and norms."""
    bare = CompacterConfig(position=position, train_layer_norm=False)
    assert (weights(bare), count(bare)["method"]) == (formula, with_biases)
    assert count(CompacterConfig(position=position, reduction_factor=32))["method"] == with_norms


def test_parallel():
    assert count(ParallelConfig(bottleneck=64))["method"] == 1_189_632
    assert count(ParallelConfig(bottleneck=64, learn_scale=True))["method"] == 1_189_632 + 12


def test_houlsby_on_bert_large():
    counts = count(AdapterConfig(train_layer_norm=False), "bert_large")
    assert counts["method"] == 6_343_680
    assert percent(counts["share_method"]) == pytest.approx(1.89, abs=5e-3)


ATTENTION = ["query", "key", "value", "output"]


@pytest.mark.parametrize(
    ("targets", "at_rank_one", "shares"),
    [
        (["query", "value"], 36_864, (0.0337, 0.0673, 0.1347, 0.2694, 0.5387, 1.0775, 2.1550)),
        (ATTENTION, 73_728, (0.0673, 0.1347, 0.2694, 0.5387, 1.0775, 2.1550, 4.3099)),
        (["all"], 165_888, (0.1515, 0.3030, 0.6061, 1.2122, 2.4243, 4.8487, 9.6973)),
    ],
    ids=["query-value", "attention", "all"],
)
def test_lora_by_rank(targets, at_rank_one, shares):
    for rank, share in zip((1, 2, 4, 8, 16, 32, 64), shares, strict=True):
        counts = count(LoraConfig(rank=rank, targets=targets))
        # the reference rounds some last digits the other way
        assert counts["method"] == rank * at_rank_one
        assert percent(counts["share_method"]) == pytest.approx(share, abs=1.01e-4)


def test_ia3_as_the_paper_and_as_peft_place_it():
    assert count(Ia3Config())["method"] == 55_296
    assert count(Ia3Config(targets=["key", "value", "output", "down"]))["method"] == 64_512


def test_dora():
    counts = count(LoraConfig(rank=8, dora=True))
    assert counts["method"] == 313_344
    assert percent(counts["share_method"]) == 0.2862


@pytest.mark.parametrize(
    ("length", "flat", "flat_share", "network", "network_share"),
    [
        (10, 184_320, 0.1684, 9_857_024, 9.003),
        (20, 368_640, 0.3367, 9_864_704, 9.010),
        (50, 921_600, 0.8418, 9_887_744, 9.031),
        (100, 1_843_200, 1.6836, 9_926_144, 9.066),
    ],
)
def test_prefix_by_length(length, flat, flat_share, network, network_share):
    direct = count(PrefixConfig(length=length))
    assert (direct["method"], percent(direct["share_method"])) == (flat, flat_share)
    through = count(PrefixConfig(length=length, reparametrize=True))
    assert (through["method"], round(100 * through["share_method"], 3)) == (network, network_share)


def test_mam():
    """Its sizes for GLUE, and for larger tasks, are what is stored: without the network."""
    assert count(MamConfig(reparametrize=False))["method"] == 599_232
    large = MamConfig(bottleneck=512, length=30, scale=4, reparametrize=False)
    assert count(large)["method"] == 10_005_504
    network = 16 * 768 + 769 * 800 + 801 * 18_432
    assert count(MamConfig())["method"] == network + 12 * 25_360


@pytest.mark.parametrize(("length", "size", "share"), [(5, 3840, 0.0035), (20, 15360, 0.014), (100, 76800, 0.0701)])
def test_prompt_by_length(length, size, share):
    counts = count(PromptConfig(length=length, init="uniform"))
    assert (counts["method"], percent(counts["share_method"])) == (size, share)


def test_bitfit():
    counts = count(BitfitConfig())
    assert (counts["method"], counts["total"]) == (102_912, BERT_BASE + HEAD)


def test_head_and_full():
    head = count(HeadConfig())
    assert (head["method"], head["share_method"], head["share_trained"]) == (0, 0, HEAD / (BERT_BASE + HEAD))
    full = count(FullConfig())
    assert (full["method"], full["share_method"], full["share_trained"]) == (BERT_BASE, 1, 1)
    assert full["total"] == BERT_BASE + HEAD == 109_483_778


@pytest.mark.parametrize(
    ("m", "one", "both"), [(8, 0.173, 0.345), (16, 0.335, 0.670), (32, 0.660, 1.320), (64, 1.310, 2.621)]
)
def test_adapter_on_minilm(m, one, both):
    for position, share in (("ffn", one), ("both", both)):
        counts = count(AdapterConfig(bottleneck=m, position=position, train_layer_norm=False), "minilm")
        assert (counts["backbone"], counts["head"]) == (22_713_216, 770)
        assert round(100 * counts["share_method"], 3) == pytest.approx(share, abs=1.01e-3)


def test_lora_on_minilm():
    counts = count(LoraConfig(), "minilm")
    assert (counts["method"], round(100 * counts["share_method"], 3)) == (73_728, 0.325)


@pytest.mark.parametrize("name", sorted(method_configs()))
def test_meta_and_real_counts_agree(name):
    """On real weights, attached or not, the same numbers as on the meta device."""
    config = method_configs()[name]
    if isinstance(config, PromptConfig):
        config = PromptConfig(init="uniform")
    model = tiny_model("roberta")
    architecture = {"model_type": "roberta", **model.config.to_diff_dict()}
    for key in ("architectures", "id2label", "label2id", "num_labels"):
        architecture.pop(key, None)
    blank = add_head(blank_backbone(architecture), 2)
    with torch.device("meta"):
        expected = count_parameters(build(config, blank.sites), blank)
    real = headed(model)
    sites = real.sites
    method = build(config, sites)
    assert count_parameters(method, real) == expected
    with method.on(sites):
        assert count_parameters(method, real) == expected


def test_a_fresh_pooler_counts_with_the_head():
    model = tiny_model("bert")
    fresh = {name for name, _ in model.base_model.named_parameters() if name.startswith("pooler")}
    backbone = headed(model, frozenset(fresh))
    counts = count_parameters(build(FullConfig(), backbone.sites), backbone)
    everything = sum(p.numel() for p in model.parameters())
    assert counts["head"] == 32 * 32 + 32 + 2 * 32 + 2
    assert counts["backbone"] == counts["method"] == everything - counts["head"]
    assert counts["total"] == everything


MODERNBERT = {
    "LoRA on slices of the fused map": (LoraConfig(), 22 * 2 * 8 * (768 + 768)),
    "LoRA everywhere": (LoraConfig(targets=["all"]), 22 * 8 * (4 * 1536 + (768 + 2304) + (1152 + 768))),
    "adapters": (AdapterConfig(train_layer_norm=False), 44 * 99_136),
    # no biases, and no norm before the first layer's attention
    "adapters and norms": (AdapterConfig(), 44 * 99_136 + (22 + 21 + 2) * 768),
    "pfeiffer": (PfeifferConfig(), 22 * (2 * 48 * 768 + 48 + 768)),
    "IA³ on slices of the fused map": (Ia3Config(), 22 * (2 * 768 + 1152)),
    "prefix": (PrefixConfig(), 22 * 2 * 20 * 768),
    "prompt": (PromptConfig(init="uniform"), 20 * 768),
    "full": (FullConfig(), 149_014_272),
}


@pytest.mark.parametrize("name", MODERNBERT)
def test_modernbert_by_hand(name):
    config, expected = MODERNBERT[name]
    assert count(config, "modernbert_base")["method"] == expected

"""Closed forms on ViT-B/16 and ViT-S/14 (DINOv2) give the counts that were made apart from this package."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification

from peftbench.methods import METHODS, find_sites

VIT_S14 = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
# method, settings, ViT-B/16 at 224, ViT-S/14 at 518
COUNTS = [
    ("full", {}, 85_798_656, 22_056_576),
    ("bitfit", {}, 102_912, 51_456),
    ("norms", {}, 38_400, 19_200),
    ("lora", {"rank": 8}, 294_912, 147_456),
    ("lora", {"rank": 16}, 589_824, 294_912),
    ("lora", {"targets": ["all"]}, 1_327_104, 663_552),
    ("adaptformer", {"bottleneck": 8}, 156_768, 78_432),
    ("adaptformer", {}, 1_189_632, 595_200),
    ("adapter", {"bottleneck": 8, "train_layer_norm": False}, 313_536, 156_864),
    ("adapter", {"train_layer_norm": False}, 2_379_264, 1_190_400),
    ("vpt", {"length": 5, "deep": False}, 3_840, 1_920),
    ("vpt", {"length": 50, "deep": False}, 38_400, 19_200),
    ("vpt", {"length": 5}, 46_080, 23_040),
    ("vpt", {"length": 50}, 460_800, 230_400),
    ("prefix", {"length": 10}, 184_320, 92_160),
    ("prefix", {}, 368_640, 184_320),
    ("ssf", {}, 205_824, 102_912),
    ("ia3", {}, 55_296, 27_648),
    ("convpass", {}, 327_552, 170_880),
    ("fact", {"rank": 16}, 61_440, 49_152),
    ("fact", {"rank": 32, "form": "tk"}, 86_528, 61_952),
]


@pytest.fixture(scope="module")
def sites():
    with torch.device("meta"):
        configs = AutoConfig.for_model("vit"), AutoConfig.for_model("dinov2", **VIT_S14)
        return [find_sites(AutoModelForImageClassification.from_config(config)) for config in configs]


@pytest.mark.parametrize(("name", "settings", "base", "small"), COUNTS)
def test_count(sites, name, settings, base, small):
    method = METHODS[name]
    config = method.config_class(**settings)
    assert [method.count(config, at) for at in sites] == [base, small]

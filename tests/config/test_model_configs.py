"""The architecture numbers in conf/model give the published parameter counts, without any weights."""

import re
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf" / "model"

# Parameters of the encoder as published, with its pooler where it has one, without any head.
COUNTS = {
    "minilm": 22_713_216,
    "mpnet_base": 109_486_464,
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "roberta_base": 124_645_632,
    "roberta_large": 355_359_744,
    "xlm_roberta_base": 278_043_648,
    "distilbert_base": 66_362_880,
    "electra_small": 13_483_008,
    "electra_base": 108_891_648,
    "deberta_v3_base": 183_831_552,
    "modernbert_base": 149_014_272,
    "modernbert_large": 394_781_696,
}


def preset(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_count(name):
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(**preset(name)["architecture"]))
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


def test_every_number_reaches_its_config():
    from transformers import AutoConfig

    for name in COUNTS:
        architecture = preset(name)["architecture"]
        config = AutoConfig.for_model(**architecture).to_dict()
        known = set(AutoConfig.for_model(architecture["model_type"]).to_dict())
        extra = {"position_buckets", "share_att_key", "norm_rel_ebd"} if name == "deberta_v3_base" else set()
        assert set(architecture) <= known | extra, name  # a misspelt key would be kept as an unused attribute
        for key, value in architecture.items():
            expected = value.split("|") if key == "pos_att_type" else value
            assert config[key] == expected and type(config[key]) is type(expected), (name, key)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_presets_are_complete(name):
    config = preset(name)
    assert (CONF / f"{name}.yaml").read_text().startswith("# ")
    assert config["name"] == name and config["source"] in ("pypi", "hub", "local")
    for package in config.get("packages", []):
        assert re.fullmatch(r"[0-9a-f]{64}", package["sha256"]) and isinstance(package["version"], str)
    if config["source"] == "pypi":
        assert config["packages"] and config["folder"] and config["files"]

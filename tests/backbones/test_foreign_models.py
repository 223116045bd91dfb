"""A model from somebody else: nothing of it is run, and nobody is asked whether it may be."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch

from peftbench.backbones.load import load_backbone
from peftbench.errors import UserError

CODE = """
from pathlib import Path
Path({ran!r}).touch()
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

class OddConfig(BertConfig):
    model_type = "odd"

class OddModel(BertForSequenceClassification):
    config_class = OddConfig

class OddTokenizer(BertTokenizerFast):
    pass
"""


@pytest.fixture
def foreign(tmp_path, tiny_model_dir, monkeypatch):
    """A copy of the tiny model; standard input fails whoever asks it."""
    monkeypatch.setattr(sys, "stdin", None)
    return shutil.copytree(tiny_model_dir, tmp_path / "foreign")


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_code_of_a_model_is_refused(foreign, tmp_path):
    (foreign / "odd.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    auto_map = {"AutoConfig": "odd.OddConfig", "AutoModelForSequenceClassification": "odd.OddModel"}
    change(foreign / "config.json", model_type="odd", auto_map=auto_map)
    assert "needs Python code of its own (auto_map), which is never run" in refusal(foreign)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_tokenizer_that_transformers_knows_is_not_run(foreign, tmp_path):
    (foreign / "odd.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    auto_map = {"AutoTokenizer": ["odd.OddTokenizer", "odd.OddTokenizer"]}
    change(foreign / "tokenizer_config.json", tokenizer_class="OddTokenizer", auto_map=auto_map)
    assert load_backbone(foreign).sites.processor("good film")["input_ids"]
    assert not (tmp_path / "ran").exists()


def test_attention_from_the_hub_is_refused(foreign):
    change(foreign / "config.json", attn_implementation="acme/attention")
    assert "asks for code from the hub (acme/attention), which is never run" in refusal(foreign)


class Attack:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickled_weights_load_as_tensors_alone(foreign, tmp_path):
    from safetensors.torch import load_file

    weights = load_file(foreign / "model.safetensors")
    (foreign / "model.safetensors").unlink()
    torch.save(weights, foreign / "pytorch_model.bin")
    name, tensor = next(iter(weights.items()))
    assert torch.equal(load_backbone(foreign).encoder.state_dict()[name], tensor)
    torch.save({**weights, "extra": Attack(str(tmp_path / "ran"))}, foreign / "pytorch_model.bin")
    assert "save them as safetensors" in refusal(foreign)  # torch's own line advises to run the file
    (foreign / "pytorch_model.bin").write_bytes(pickle.dumps(Attack(str(tmp_path / "ran"))))
    assert "cannot load a model" in refusal(foreign)
    assert not (tmp_path / "ran").exists()

"""Loading a backbone: what is its own, what is the head's, and what a broken folder says."""

import json

import pytest
import torch
from tiny import tiny_model

from peftbench.backbones.load import blank_backbone, load_backbone
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.full import FullConfig


def test_only_the_head_trains_and_the_encoder_is_the_checkpoint_s(tiny_model_dir):
    backbone = load_backbone(tiny_model_dir, 3)
    assert {n for n, p in backbone.model.named_parameters() if p.requires_grad} == set(backbone.head)
    assert backbone.head["classifier.weight"].shape == (3, 32)
    again = load_backbone(tiny_model_dir, 3)
    for name, parameter in backbone.sites.backbone_parameters():
        assert torch.equal(parameter, dict(again.sites.backbone_parameters())[name])


def test_a_fresh_pooler_belongs_to_the_head(tiny_model_dir, tmp_path):
    backbone = load_backbone(tiny_model_dir, 2)
    encoder = backbone.model.base_model
    state = {name: p for name, p in encoder.state_dict().items() if not name.startswith("pooler")}
    encoder.save_pretrained(tmp_path, state_dict=state)
    backbone.sites.tokenizer.save_pretrained(tmp_path)
    fresh = load_backbone(tmp_path, 2)
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < set(fresh.head)
    assert backbone.size - fresh.size == 32 * 32 + 32
    for config in (FullConfig(), BitfitConfig()):
        method = build(config, fresh.sites)
        assert not [name for name in method.state_dict() if "pooler" in name]
        assert sum(p.numel() for p in method.parameters()) == method.count(config, fresh.sites)


def test_a_renewed_backbone_is_as_loaded_with_the_same_seed(tiny_model_dir, tmp_path):
    saved = load_backbone(tiny_model_dir, 2)
    state = {name: p for name, p in saved.model.state_dict().items() if "pooler" not in name}
    saved.model.save_pretrained(tmp_path, state_dict=state)  # carries a classifier, lacks the pooler
    saved.sites.tokenizer.save_pretrained(tmp_path)
    for folder in (tiny_model_dir, tmp_path):
        torch.manual_seed(3)
        loaded, drawn = load_backbone(folder, 2), torch.rand(1)
        used = load_backbone(folder, 2)
        for parameter in used.head.values():
            parameter.data.add_(1)
            parameter.grad = torch.ones_like(parameter)
        used.model.train()
        torch.manual_seed(3)
        used.renew()
        assert torch.equal(torch.rand(1), drawn)
        assert not used.model.training
        assert all(parameter.grad is None for parameter in used.model.parameters())
        for name, parameter in loaded.model.state_dict().items():
            assert torch.equal(used.model.state_dict()[name], parameter), name


def test_dropout_is_replaced_where_asked(tiny_model_dir):
    def rates(backbone):
        return {m.p for m in backbone.model.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates(load_backbone(tiny_model_dir, 2)) == {0.1}
    assert rates(load_backbone(tiny_model_dir, 2, dropout=0.0)) == {0.0}


def test_weights_cut_short(tiny_model_dir, tmp_path):
    for file in tiny_model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot load a model from") as caught:
        load_backbone(tmp_path, 2)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_architecture(tiny_model_dir, tmp_path):
    for file in tiny_model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="of another architecture"):
        load_backbone(tmp_path, 2)


def test_a_blank_backbone_has_the_counts_of_a_real_one():
    from tiny import ARCHITECTURES

    blank = blank_backbone({"model_type": "roberta", **ARCHITECTURES["roberta"]}, 2)
    real = tiny_model("roberta")
    assert blank.size == sum(p.numel() for p in real.base_model.parameters())
    assert all(p.device.type == "meta" for p in blank.model.parameters())
    with pytest.raises(UserError, match="model_type"):
        blank_backbone({}, 2)


def test_a_saved_classifier_of_another_task_gets_a_new_head(tmp_path, tiny_model_dir):
    saved = load_backbone(tiny_model_dir, 5)
    saved.model.save_pretrained(tmp_path)
    saved.sites.tokenizer.save_pretrained(tmp_path)
    backbone = load_backbone(tmp_path, 2)
    assert backbone.head["classifier.weight"].shape == (2, 32)
    encoder = dict(backbone.sites.backbone_parameters())
    assert all(torch.equal(p, encoder[name]) for name, p in saved.sites.backbone_parameters())

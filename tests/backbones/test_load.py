"""Loading a backbone: what is its own, what is the head's, and what a broken folder says."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from foreign_tiny import recognised_model
from tiny import ARCHITECTURES, headed, tiny_batch, tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from peftbench.backbones.heads import HeadedBackbone, add_head, start_at
from peftbench.backbones.load import blank_backbone, load_backbone
from peftbench.errors import UserError
from peftbench.methods import build
from peftbench.methods.bitfit import BitfitConfig
from peftbench.methods.full import FullConfig


def _load(folder: Path, num_outputs: int, dropout: float | None = None) -> HeadedBackbone:
    return add_head(load_backbone(folder, dropout), num_outputs)


def test_only_the_head_trains_and_the_encoder_is_the_checkpoint_s(tiny_model_dir):
    backbone = _load(tiny_model_dir, 3)
    assert {n for n, p in backbone.model.named_parameters() if p.requires_grad} == set(backbone.head)
    assert backbone.head["classifier.weight"].shape == (3, 32)
    again = _load(tiny_model_dir, 3)
    for name, parameter in backbone.sites.backbone_parameters():
        assert torch.equal(parameter, dict(again.sites.backbone_parameters())[name])


def test_a_fresh_pooler_belongs_to_the_head(tiny_model_dir, tmp_path):
    backbone = _load(tiny_model_dir, 2)
    encoder = backbone.model.base_model
    state = {name: p for name, p in encoder.state_dict().items() if not name.startswith("pooler")}
    encoder.save_pretrained(tmp_path, state_dict=state)
    backbone.sites.processor.save_pretrained(tmp_path)
    fresh = _load(tmp_path, 2)
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < set(fresh.head)
    assert backbone.size - fresh.size == 32 * 32 + 32
    for config in (FullConfig(), BitfitConfig()):
        method = build(config, fresh.sites)
        assert not [name for name in method.state_dict() if "pooler" in name]
        assert sum(p.numel() for p in method.parameters()) == method.count(config, fresh.sites)


@pytest.fixture
def without_pooler(tiny_model_dir, tmp_path):
    """A checkpoint that carries a classifier and lacks the pooler."""
    saved = _load(tiny_model_dir, 2)
    state = {name: p for name, p in saved.model.state_dict().items() if "pooler" not in name}
    saved.model.save_pretrained(tmp_path, state_dict=state)
    saved.sites.processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_head_starts_as_transformers_draws_it(tiny_model_dir, without_pooler):
    for folder in (tiny_model_dir, without_pooler):
        torch.manual_seed(3)
        theirs = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
        drawn = torch.rand(1)
        torch.manual_seed(3)
        ours = _load(folder, 2)
        assert torch.equal(torch.rand(1), drawn), "as many random numbers are drawn"
        assert ours.model.state_dict().keys() == theirs.state_dict().keys()
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.model.state_dict()[name], tensor), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("saved", ["encoder", "classifier of three"])
def test_every_architecture_s_head_starts_as_transformers_draws_it(architecture, saved, tiny_model_dir, tmp_path):
    model = tiny_model(architecture, num_labels=3)
    (model.base_model if saved == "encoder" else model).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path)
    torch.manual_seed(3)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=2, ignore_mismatched_sizes=True)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    ours = _load(tmp_path, 2)
    assert torch.equal(torch.rand(1), drawn), "as many random numbers are drawn"
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor), name


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_head_of_one_output_starts_at_the_answer_given(architecture):
    backbone = headed(tiny_model(architecture, 1))
    with torch.no_grad():
        before = backbone.model(**tiny_batch()).logits
        start_at(backbone, 2.75)
        after = backbone.model(**tiny_batch()).logits
    assert torch.allclose(after, before + 2.75, atol=1e-5)


def test_a_head_that_the_checkpoint_carries_starts_as_it_is(tiny_model_dir, tmp_path):
    saved = _load(tiny_model_dir, 1)
    saved.model.save_pretrained(tmp_path)
    saved.sites.processor.save_pretrained(tmp_path)
    again = _load(tmp_path, 1)
    start_at(again, 2.75)
    assert torch.equal(again.head["classifier.bias"], saved.head["classifier.bias"])


def test_one_backbone_carries_several_heads(without_pooler):
    backbone = load_backbone(without_pooler)
    batch = tiny_batch(vocabulary=60)
    two, three = add_head(backbone, 2), add_head(backbone, 3)
    assert set(two.head) == set(three.head) and "bert.pooler.dense.weight" in two.head
    answers = two.model(**batch).logits, three.model(**batch).logits
    assert [answer.shape for answer in answers] == [(3, 2), (3, 3)]
    shared = [dict(h.sites.backbone_parameters()) for h in (two, three)]
    assert all(shared[0][name] is p for name, p in shared[1].items())
    with torch.no_grad():
        for parameter in three.head.values():
            parameter.add_(1)
    assert torch.equal(two.model(**batch).logits, answers[0])
    assert not torch.equal(three.model(**batch).logits, answers[1])
    two.model(**batch).logits.sum().backward()
    assert all(p.grad is not None for p in two.head.values())
    assert all(p.grad is None for p in three.head.values())


def test_a_used_backbone_takes_a_head_as_a_loaded_one(without_pooler):
    torch.manual_seed(3)
    loaded = _load(without_pooler, 2)
    backbone = load_backbone(without_pooler)
    used = add_head(backbone, 2)
    for parameter in used.head.values():
        parameter.data.add_(1)
    used.model.train()
    torch.manual_seed(3)
    renewed = add_head(backbone, 2)
    assert not renewed.model.training
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(renewed.model.state_dict()[name], tensor), name


def test_dropout_is_replaced_where_asked(tiny_model_dir):
    def rates(backbone):
        return {m.p for m in backbone.model.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates(_load(tiny_model_dir, 2)) == {0.1}
    assert rates(_load(tiny_model_dir, 2, dropout=0.0)) == {0.0}


def test_a_file_that_is_written_over_does_not_change_a_loaded_model(tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    model = load_backbone(folder).encoder
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-(1 << 15), os.SEEK_END)
        file.write(bytes(1 << 15))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_cut_short(tiny_model_dir, tmp_path):
    for file in tiny_model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot load a model from") as caught:
        _load(tmp_path, 2)
    assert "\n" not in str(caught.value)


def test_memory_that_runs_out_is_no_mistake_in_the_folder(tiny_model_dir, monkeypatch):
    def full(model):
        raise MemoryError

    monkeypatch.setattr("peftbench.backbones.load._copy_weights", full)
    with pytest.raises(MemoryError):
        load_backbone(tiny_model_dir)


def test_a_checkpoint_of_another_architecture(tiny_model_dir, tmp_path):
    for file in tiny_model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match="of another architecture"):
        _load(tmp_path, 2)


def test_a_blank_backbone_has_the_counts_of_a_real_one():
    blank = add_head(blank_backbone({"model_type": "roberta", **ARCHITECTURES["roberta"]}), 2)
    real = tiny_model("roberta")
    assert blank.size == sum(p.numel() for p in real.base_model.parameters())
    assert all(p.device.type == "meta" for p in blank.model.parameters())
    with pytest.raises(UserError, match="model_type"):
        blank_backbone({})


def test_a_saved_classifier_of_another_task_gets_a_new_head(tmp_path, tiny_model_dir):
    saved = _load(tiny_model_dir, 5)
    saved.model.save_pretrained(tmp_path)
    saved.sites.processor.save_pretrained(tmp_path)
    backbone = _load(tmp_path, 2)
    assert backbone.head["classifier.weight"].shape == (2, 32)
    encoder = dict(backbone.sites.backbone_parameters())
    assert all(torch.equal(p, encoder[name]) for name, p in saved.sites.backbone_parameters())


@pytest.mark.parametrize("architecture", ["layoutlm", "longformer", "bert"])
def test_dropout_reaches_rates_kept_as_plain_numbers(architecture, tiny_model_dir, tmp_path):
    recognised_model(architecture).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(tmp_path)
    batch = tiny_batch(vocabulary=60)
    for rate, alike in ((None, False), (0.0, True)):
        model = _load(tmp_path, 2, dropout=rate).model.train()
        first, second = (model(**batch).logits for _ in range(2))
        assert torch.equal(first, second) == alike

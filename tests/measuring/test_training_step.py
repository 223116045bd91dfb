"""The training step's time against full fine-tuning's, and the time of a task switch."""

import pytest
import torch
from operations import Operations

from peftbench.backbones.heads import add_head
from peftbench.backbones.load import load_backbone
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.measuring import training_step
from peftbench.measuring.run import measure_section
from peftbench.measuring.switching import measure_switching
from peftbench.measuring.training_step import LEAST_ROUNDS, STEPS, measure_training_step
from peftbench.methods import build
from peftbench.methods.full import FullConfig
from peftbench.methods.head import HeadConfig
from peftbench.methods.lora import LoraConfig
from peftbench.methods.prompt import PromptConfig
from peftbench.runs.adapter import load_adapter
from peftbench.tasks.classification import Classification
from peftbench.tasks.text.batching import encode
from peftbench.training import loop as training

OBJECTIVE = Classification(("no", "yes"))


@pytest.fixture
def backbone(tiny_model_dir):
    torch.manual_seed(0)
    return add_head(load_backbone(tiny_model_dir), 2)


@pytest.fixture
def data(backbone):
    texts = [("the film was good and fine",) if i % 2 else ("a bad plot",) for i in range(40)]
    return encode(texts, [i % 2 for i in range(40)], backbone.sites.processor, 16)


@pytest.fixture
def counted(monkeypatch):
    """Let the time of training be the number of operations it takes."""

    def fit(**given):
        with Operations() as operations:
            fitted = training.fit(**given)
        for row in fitted.rows:
            row["seconds"] = operations.count / len(fitted.rows)
        return fitted

    monkeypatch.setattr(training_step, "fit", fit)


def measure(config, backbone, data, *settings):
    trainer = resolve(compose(["trainer.batch_size=8", *settings])).trainer
    return measure_training_step(build(config, backbone.sites), backbone, True, data, OBJECTIVE.loss, trainer, 0.2)


def test_a_step_takes_as_long_where_the_run_has_few(backbone, data, counted):
    few, many = (measure(HeadConfig(), backbone, data, *more) for more in (["trainer.max_steps=1"], []))
    assert few["ms"] == many["ms"] and few["full_ms"] == many["full_ms"] and few["steps"] == STEPS


@pytest.mark.long
def test_full_against_itself_is_one_and_the_head_alone_is_cheaper(backbone, data, counted):
    same, head = measure(FullConfig(), backbone, data), measure(HeadConfig(), backbone, data)
    assert same["ratio"] == pytest.approx(1, abs=0.01)
    assert head["ratio"] < 0.8 and head["ratio_low"] <= head["ratio"] <= head["ratio_high"]
    assert head["ms"] < head["full_ms"] and head["rounds"] >= LEAST_ROUNDS and head["steps"] == STEPS


def test_everything_is_left_as_it_was(backbone, data):
    method = build(LoraConfig(), backbone.sites)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    own = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    trainer = resolve(compose(["trainer.batch_size=8", "trainer.lr=0.1"])).trainer
    measure_training_step(method, backbone, True, data, OBJECTIVE.loss, trainer, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    assert all(torch.equal(tensor, own[name]) for name, tensor in method.state_dict().items())
    assert not method.attached and all(parameter.grad is None for parameter in backbone.model.parameters())


def test_a_trained_method_is_taken_off_before_others_are_timed(backbone, data, tmp_path, monkeypatch):
    method = build(PromptConfig(length=4), backbone.sites)
    config = resolve(compose(["trainer.batch_size=8", "measure.seconds=0.1"]))

    def section(name):
        method.attach(backbone.sites)
        return measure_section(
            name, method, backbone, False, data, OBJECTIVE.loss, tmp_path, lambda *_: pytest.fail("not asked"), config
        )

    assert section("training_step")["rounds"] >= LEAST_ROUNDS
    seen = []
    for name in ("training_step", "switching"):
        monkeypatch.setattr(f"peftbench.measuring.run.measure_{name}", lambda *_: seen.append(method.attached) or {})
        section(name)
    assert seen == [False, False] and not method.attached


def test_a_switch_from_memory_is_quicker_than_from_disk(tiny_run, tiny_model_dir):
    backbone = add_head(load_backbone(tiny_model_dir), 2)
    before = {name: parameter.clone() for name, parameter in backbone.sites.backbone_parameters()}
    told = measure_switching(tiny_run.adapter_dir, backbone, load_adapter)
    assert told["ms"]["least"] <= told["ms"]["median"] <= told["ms"]["most"]
    assert told["memory_ms"]["median"] < told["ms"]["median"]
    assert told["bytes"] == sum(path.stat().st_size for path in tiny_run.adapter_dir.iterdir())
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.sites.backbone_parameters())

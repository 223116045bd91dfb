import shutil
from pathlib import Path

import pytest
import torch

from peftbench.errors import UserError
from peftbench.runs.record import Record, Status
from peftbench.serving.load import describe_run, inference, load_run_model
from peftbench.tasks.text.batching import encode
from peftbench.training.inference import logits_of

CPU = torch.device("cpu")
TEXTS = [("the film was good",), ("a dull and bad plot",), ("the plot is fine but dull",)]


@pytest.fixture
def copied(tiny_run: Record, tmp_path: Path) -> Record:
    """A copy of the run that a test may damage."""
    return Record(shutil.copytree(tiny_run.folder, tmp_path / tiny_run.folder.name))


def lay_elsewhere(record: Record, folder: str) -> None:
    """Let the run's model lie in another folder, as one who moved it would write it."""
    path = record.adapter_dir / "adapter.json"
    path.write_text(path.read_text().replace(describe_run(record).model["path"], folder))
    record.finish()


def logits(model) -> torch.Tensor:
    data = encode(TEXTS, None, model.backbone.sites.processor, 32)
    return logits_of(model.backbone.model, data, 2, "fp32", CPU)


@pytest.mark.parametrize("fixture", ["tiny_run", "tiny_pair_run", "tiny_score_run"])
def test_gives_what_training_recorded(fixture: str, request: pytest.FixtureRequest) -> None:
    from peftbench.config.task import fill_task
    from peftbench.tasks.text.read import load_task

    record: Record = request.getfixturevalue(fixture)
    model = load_run_model(record, CPU)
    settings = {**model.description.task, "labels": model.description.labels}
    texts = load_task(fill_task(settings), ["validation"]).splits["validation"].texts
    with inference(model, "fp32"):
        found = logits_of(
            model.backbone.model, encode(texts, None, model.backbone.sites.processor, 32), 64, "fp32", CPU
        )
    told = record.predictions(record.read().evaluation("validation"))
    if told.probabilities is None:
        torch.testing.assert_close(found.squeeze(-1), torch.tensor(told.predictions), rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(found.softmax(-1), torch.tensor(told.probabilities), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fixture", ["tiny_run", "tiny_score_run"])
def test_the_method_stays_attached(fixture: str, request: pytest.FixtureRequest) -> None:
    model = load_run_model(request.getfixturevalue(fixture), CPU)
    plain = logits(model)
    with inference(model, "fp32"):
        inside = logits(model)
    assert model.method.attached
    torch.testing.assert_close(inside, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(model), plain, rtol=0, atol=0)
    model.method.detach()
    assert not torch.allclose(logits(model), plain, atol=1e-3)


def test_merged(tiny_run: Record) -> None:
    model = load_run_model(tiny_run, CPU)
    weights = {name: p.clone() for name, p in model.backbone.model.named_parameters()}
    plain = logits(model)
    with inference(model, "fp32", merged=True):
        changed = [name for name, p in model.backbone.model.named_parameters() if not torch.equal(p, weights[name])]
        torch.testing.assert_close(logits(model), plain, rtol=1e-4, atol=1e-4)
    assert len(changed) == 4  # query and value of two layers
    assert all(torch.equal(p, weights[name]) for name, p in model.backbone.model.named_parameters())


def test_not_mergeable(tiny_pair_run: Record) -> None:
    model = load_run_model(tiny_pair_run, CPU)
    with (
        pytest.raises(UserError, match="--merged: adapter cannot be merged.*only fact, ia3, lora"),
        inference(model, "fp32", merged=True),
    ):
        pass
    assert model.method.attached


@pytest.mark.parametrize("status", [Status.FAILED, Status.INTERRUPTED])
def test_an_unfinished_run(copied: Record, status: Status) -> None:
    shutil.rmtree(copied.adapter_dir)
    copied.fail(status, "stopped")
    with pytest.raises(
        UserError, match=f"run {copied.folder.name} has no trained adapter, its status is {status}: the same"
    ):
        load_run_model(copied, CPU)


def test_a_missing_model(copied: Record) -> None:
    lay_elsewhere(copied, describe_run(copied).model["path"] + "-moved")
    with pytest.raises(UserError, match=f"the model of run {copied.folder.name} is gone: there is no folder .*-moved"):
        load_run_model(copied, CPU)


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter.json"])
def test_a_file_cut_short(copied: Record, file: str) -> None:
    path = copied.adapter_dir / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{file} is .*damaged.*force=true"):
        load_run_model(copied, CPU)


def test_another_model(copied: Record, tmp_path: Path) -> None:
    from tiny import ARCHITECTURES
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = tmp_path / "wider"
    shutil.copytree(describe_run(copied).model["path"], folder)
    settings = {**ARCHITECTURES["bert"], "hidden_size": 64}
    AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert", **settings)).save_pretrained(folder)
    lay_elsewhere(copied, str(folder))
    with pytest.raises(UserError, match="holds another model than run"):
        load_run_model(copied, CPU)
    copied.update(origin=None)  # as a record of version 1, which does not say what it was trained on
    with pytest.raises(UserError, match=r"adapter\.safetensors is of another model"):
        load_run_model(copied, CPU)


@pytest.mark.parametrize("method", ["lora", "full", "prompt"])
def test_a_run_scored_in_bf16_gives_its_record_s_figures_again(method: str, train_tiny) -> None:
    from peftbench.config.task import fill_task
    from peftbench.tasks.text.read import load_task

    record: Record = train_tiny("opinions", f"method={method}", "trainer.precision=bf16", "experiment=bf16")
    evaluation = record.read().evaluation("validation")
    assert evaluation.precision == "bf16"
    model = load_run_model(record, CPU)
    settings = {**model.description.task, "labels": model.description.labels}
    texts = load_task(fill_task(settings), ["validation"]).splits["validation"].texts
    data = encode(texts, None, model.backbone.sites.processor, 32)
    with inference(model, "bf16"):
        found = logits_of(model.backbone.model, data, 64, "bf16", CPU)
    assert {p.dtype for p in model.backbone.model.parameters()} == {torch.float32}
    told = record.predictions(evaluation)
    torch.testing.assert_close(found.softmax(-1), torch.tensor(told.probabilities), rtol=1e-5, atol=1e-6)

"""`peftbench export`: what plain transformers makes of the folder, what is refused, that nothing is half-written."""

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
from types import SimpleNamespace

import forked
import pytest
import torch
from tiny import tiny_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from peftbench.commands import export
from peftbench.errors import PeftbenchError, UserError
from peftbench.runs.record import Record
from peftbench.serving.load import load_run_model
from peftbench.serving.merged import write_merged


def exported(record, folder):
    assert export.main([str(record.folder), "--output", str(folder)]) == 0
    return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def read_in_a_fork(monkeypatch):
    """Have what was exported loaded by a forked process; where another Python than this one is asked for, by that."""

    def run(line, env, **options):
        if line[0] != sys.executable:
            return subprocess.run(line, env=env, **options)
        return forked.run(line[1:], env={name: env[name] for name in env if name != "HF_HUB_OFFLINE"}, **options)

    monkeypatch.setattr("peftbench.serving.export.subprocess", SimpleNamespace(run=run))


@pytest.fixture
def other_base(tiny_model_dir, tmp_path_factory):
    """A function that saves a model as the tiny one's folder and returns the override that names it."""

    def save(model):
        folder = shutil.copytree(tiny_model_dir, tmp_path_factory.mktemp("base") / "model")
        model.base_model.save_pretrained(folder)
        return f"model.path={folder}"

    return save


def test_plain_transformers_answers_as_the_run(tiny_run, tmp_path, capsys):
    model, tokenizer = exported(tiny_run, tmp_path / "made")
    assert "21 predictions equal" in capsys.readouterr().out
    assert model.config.id2label == {0: "bad", 1: "good"}
    batch = tokenizer(["good film", "bad, the plot was thin"], padding=True, return_tensors="pt")
    run = load_run_model(tiny_run, torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, run.backbone.model(**batch).logits, rtol=1e-5, atol=1e-5)
    assert {stat.S_IMODE(file.stat().st_mode) & 0o044 for file in (tmp_path / "made").iterdir()} == {0o044}
    card = (tmp_path / "made" / "README.md").read_text()
    accuracy = 100 * tiny_run.read().metrics["validation"]["accuracy"]
    assert f"| validation | 21 | accuracy | {accuracy:.1f} % |" in card and "targets=[query,value]" in card


def test_a_regression_that_trained_all_weights(read_in_a_fork, train_tiny, tmp_path, capsys):
    record = train_tiny("scores", "method=full")
    model, _ = exported(record, tmp_path / "made")
    assert model.config.problem_type == "regression" and model.config.num_labels == 1
    assert "largest difference" in (out := capsys.readouterr().out) and "predictions equal" not in out
    card = (tmp_path / "made" / "README.md").read_text()
    assert '"text_pair": "…"' in card and "Classes" not in card


def test_what_weights_cannot_hold_is_refused(tiny_pair_run, tiny_score_run, tmp_path):
    for record, name in ((tiny_pair_run, "adapter"), (tiny_score_run, "prefix")):
        with pytest.raises(UserError, match=f"--to merged: {name} acts beside the weights.*full, head, ia3, lora"):
            export.main([str(record.folder), "--output", str(tmp_path / "made")])
    assert not list(tmp_path.iterdir())


def test_a_bias_that_the_architecture_has_not_is_refused(train_tiny, other_base, tmp_path, monkeypatch):
    record = train_tiny("opinions", "method=ssf", "trainer.max_steps=1", other_base(tiny_model("modernbert")))
    monkeypatch.setattr("peftbench.serving.export._answers", None)  # before the validation split is answered
    with pytest.raises(UserError, match="--to merged: method=ssf gives .* a bias, .*ModernBertFor.* no place for") as e:
        export.main([str(record.folder), "--output", str(tmp_path / "made")])
    assert "\n" not in str(e.value) and not list(tmp_path.iterdir())
    model = load_run_model(record, torch.device("cpu"))
    with pytest.raises(UserError):
        write_merged(model, None, tmp_path)
    assert model.method.attached and not model.method.merged


def test_nothing_is_written_over(tiny_run, tmp_path):
    with pytest.raises(UserError, match="exists already: choose another --output"):
        export.main([str(tiny_run.folder), "--output", str(tmp_path)])
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="cannot write .*made: .*; choose another --output"):
        export.main([str(tiny_run.folder), "--output", str(file / "made")])
    assert file.read_text() == "mine"
    with pytest.raises(UserError, match="cannot write x*: File name too long; choose another --output"):
        export.main([str(tiny_run.folder), "--output", "x" * 300])


def test_hugging_face_peft_answers_as_the_run(read_in_a_fork, tiny_run, tmp_path, capsys):
    pytest.importorskip("peft", reason="needs the extra peft")
    assert export.main([str(tiny_run.folder), "--to", "peft", "--output", str(tmp_path / "made")]) == 0
    assert "Loaded by peft " in (out := capsys.readouterr().out) and "21 predictions equal" in out
    card = (tmp_path / "made" / "README.md").read_text()
    assert "library_name: peft" in card and "id2label={0: 'bad', 1: 'good'}" in card
    assert 'model = PeftModel.from_pretrained(base, "made")' in card and "Loaded by peft " in card
    modes = {stat.S_IMODE(file.stat().st_mode) & 0o044 for file in (tmp_path / "made").iterdir()}
    assert modes == {0o044}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_model_that_was_saved_in_half_precision(read_in_a_fork, train_tiny, other_base, tmp_path, dtype, capsys):
    pytest.importorskip("peft", reason="needs the extra peft")
    record = train_tiny("opinions", "method=lora", "trainer.max_steps=1", other_base(tiny_model("bert").to(dtype)))
    for to in ("merged", "peft"):
        assert export.main([str(record.folder), "--to", to, "--output", str(tmp_path / to)]) == 0
        assert "21 predictions equal" in capsys.readouterr().out
    assert 'dtype="float32")' in (tmp_path / "peft" / "README.md").read_text()


def test_adapterhub_answers_as_the_run(tiny_pair_run, tmp_path, capsys):
    """Layer norms that were trained go along with the head."""
    assert export.main([str(tiny_pair_run.folder), "--to", "adapters", "--output", str(tmp_path / "made")]) == 0
    reader = "Loaded by adapters " if os.environ.get("PEFTBENCH_ADAPTERS_PYTHON") else "Read back by peftbench"
    assert reader in (out := capsys.readouterr().out) and "21 predictions equal" in out
    card = (tmp_path / "made" / "README.md").read_text()
    assert "layer norms" in card and 'model.load_adapter("made", set_active=True, use_safetensors=True)' in card
    assert json.loads((tmp_path / "made" / "head_config.json").read_text())["label2id"] == {
        "not_equivalent": 0,
        "equivalent": 1,
    }


@pytest.mark.parametrize(
    ("run", "to", "message"),
    [
        ("tiny_pair_run", "peft", "--to peft: it has no adapter; what can be exported so is ia3, lora, prefix"),
        ("tiny_prompt_run", "peft", "--to peft: method=prompt .* is ia3, lora, prefix; --to adapters takes prompt"),
        ("tiny_front_run", "adapters", "--to adapters: method.insert=front: .* insert=after_first can be exported"),
        ("tiny_head_run", "adapters", "--to adapters: it has no head; what can be exported so is adapter, compacter"),
    ],
)
def test_what_a_library_cannot_express_is_refused(request, train_tiny, tmp_path, monkeypatch, run, to, message):
    methods = {
        "tiny_prompt_run": ["method=prompt", "method.length=2"],
        "tiny_front_run": ["method=prompt", "method.length=2", "method.insert=front"],
        "tiny_head_run": ["method=head"],
    }
    record = train_tiny("opinions", *methods[run]) if run in methods else request.getfixturevalue(run)
    monkeypatch.setattr("peftbench.serving.export._answers", None)  # before the validation split is answered
    with pytest.raises(UserError, match=message) as raised:
        export.main([str(record.folder), "--to", to, "--output", str(tmp_path / "made")])
    assert "\n" not in str(raised.value) and not list(tmp_path.iterdir())


def test_a_library_that_is_not_there(read_in_a_fork, tiny_run, tmp_path, monkeypatch):
    from peftbench.serving import targets

    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--to peft: .* is not installed here: pip install 'peftbench\[peft\]'"):
        export.main([str(tiny_run.folder), "--to", "peft", "--output", str(tmp_path / "made")])
    monkeypatch.setenv("PEFTBENCH_ADAPTERS_PYTHON", str(tmp_path / "no-python"))
    with pytest.raises(UserError, match="PEFTBENCH_ADAPTERS_PYTHON=.*no-python: no such program; name the Python"):
        export.main([str(tiny_run.folder), "--to", "adapters", "--output", str(tmp_path / "made")])
    monkeypatch.setenv("PEFTBENCH_ADAPTERS_PYTHON", sys.executable)
    if importlib.util.find_spec("adapters") is None:
        monkeypatch.setattr("peftbench.serving.export.load_run_model", None)  # this shows before anything is loaded
        with pytest.raises(UserError, match="PYTHON=.*: it cannot import adapters .ModuleNotFound.*; name the Python"):
            export.main([str(tiny_run.folder), "--to", "adapters", "--output", str(tmp_path / "made")])
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_refused(tiny_run, tmp_path):
    for name in ("result.json", "config.yaml"):
        (tmp_path / tiny_run.folder.name / name).parent.mkdir(exist_ok=True)
        shutil.copy(tiny_run.folder / name, tmp_path / tiny_run.folder.name)
    record = Record(tmp_path / tiny_run.folder.name)
    record.update(status="failed", error="it fell")
    with pytest.raises(UserError, match="has no trained adapter, its status is failed: the same `peftbench train`"):
        export.main([str(record.folder), "--to", "adapters", "--output", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "plain transformers cannot load what was exported"),
        (lambda path: path.with_name("config.json").write_text(json.dumps({})), "cannot load what was exported"),
    ],
)
def test_a_folder_that_does_not_load_gets_no_name(read_in_a_fork, tiny_run, tmp_path, monkeypatch, damage, message):
    from peftbench.serving import targets

    def write(*given):
        write_merged(*given)
        damage(given[-1] / "model.safetensors")

    monkeypatch.setattr(targets, "write_merged", write)
    for output in ("made", "new/folders/made"):
        with pytest.raises(PeftbenchError, match=message):
            export.main([str(tiny_run.folder), "--output", str(tmp_path / output)])
        assert not list(tmp_path.iterdir())


def test_a_model_that_answers_otherwise_gets_no_name(read_in_a_fork, tiny_run, tmp_path, monkeypatch):
    from peftbench.serving import export as library

    def reloaded(*given, before=library._reloaded):
        logits, by = before(*given)
        return logits + 0.1, by

    monkeypatch.setattr(library, "_reloaded", reloaded)
    with pytest.raises(PeftbenchError, match=r"does not answer as the run does: logits differ by up to 0\.1; nothing"):
        export.main([str(tiny_run.folder), "--output", str(tmp_path / "made")])
    assert not list(tmp_path.iterdir())

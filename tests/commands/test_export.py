"""`peftbench export`: what plain transformers makes of the folder, what is refused, that nothing is half-written."""

import json
import stat

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from peftbench.commands import export
from peftbench.errors import PeftbenchError, UserError
from peftbench.serving.load import load_run_model


def exported(record, folder):
    assert export.main([str(record.folder), "--output", str(folder)]) == 0
    return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


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


def test_a_regression_that_trained_all_weights(train_tiny, tmp_path, capsys):
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


def test_nothing_is_written_over(tiny_run, tmp_path):
    with pytest.raises(UserError, match="exists already: choose another --output"):
        export.main([str(tiny_run.folder), "--output", str(tmp_path)])
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(UserError, match="cannot write .*made: .*; choose another --output"):
        export.main([str(tiny_run.folder), "--output", str(file / "made")])
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "plain transformers cannot load what was exported"),
        (lambda path: path.with_name("config.json").write_text(json.dumps({})), "cannot load what was exported"),
    ],
)
def test_a_folder_that_does_not_load_gets_no_name(tiny_run, tmp_path, monkeypatch, damage, message):
    from peftbench.serving import export as library

    written = library._write
    monkeypatch.setattr(library, "_write", lambda *given: (written(*given), damage(given[-1] / "model.safetensors")))
    with pytest.raises(PeftbenchError, match=message):
        export.main([str(tiny_run.folder), "--output", str(tmp_path / "made")])
    assert not list(tmp_path.iterdir())


def test_a_model_that_answers_otherwise_gets_no_name(tiny_run, tmp_path, monkeypatch):
    from peftbench.serving import export as library

    def reloaded(*given, before=library._reloaded):
        logits, by = before(*given)
        return logits + 0.1, by

    monkeypatch.setattr(library, "_reloaded", reloaded)
    with pytest.raises(PeftbenchError, match=r"does not answer as the run does: logits differ by up to 0\.1; nothing"):
        export.main([str(tiny_run.folder), "--output", str(tmp_path / "made")])
    assert not list(tmp_path.iterdir())

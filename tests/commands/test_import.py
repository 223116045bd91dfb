"""`peftbench import`: a record that the other commands take, and what is refused."""

import itertools
import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_model

from peftbench.commands import evaluate, export, predict, runs
from peftbench.errors import TakenOverError, UserError
from peftbench.runs.find import find_runs
from peftbench.runs.identity import run_id
from peftbench.runs.record import Record
from peftbench.serving.exchange import peft_folder
from peftbench.serving.load import load_run_model

import_command = import_module("peftbench.commands.import")


@pytest.fixture(autouse=True)
def without_the_library(monkeypatch):
    """AdapterHub's adapters checks its exports in their own tests."""
    monkeypatch.delenv("PEFTBENCH_ADAPTERS_PYTHON", raising=False)


@pytest.fixture
def bring_in(tmp_path, tiny_model_dir, tiny_data_dir):
    """A function that imports a folder on the tiny model and returns the record; `.line` is what it types."""
    files = {name: tiny_data_dir / "opinions" / f"{name}.csv" for name in ("train", "validation", "test")}
    tasks = {
        "text_file": [f"task.splits.{name}={path}" for name, path in files.items()],
        "mrpc": [f"task.dir={tiny_data_dir / 'pairs'}"],
        "stsb": [f"task.dir={tiny_data_dir / 'pairs'}"],
    }

    def line(folder: Path, task: str, *overrides: str) -> list[str]:
        settings = [f"output_dir={tmp_path / 'outputs'}", "model=local", f"model.path={tiny_model_dir}"]
        settings += ["task.max_length=32", "device=cpu", "threads=1", "trainer.precision=fp32"]
        return [str(folder), "--task", task, *settings, *tasks[task], *overrides]

    def bring(folder: Path, task: str, *overrides: str) -> Record:
        assert import_command.main(line(folder, task, *overrides)) == 0
        (found,) = find_runs(tmp_path / "outputs")
        return found.record

    bring.line, bring.outputs = line, tmp_path / "outputs"
    return bring


@pytest.fixture
def as_peft(tiny_run, tmp_path):
    """The tiny LoRA run as a folder of Hugging Face peft, without what peftbench alone adds."""
    model = load_run_model(tiny_run, torch.device("cpu"))
    folder = tmp_path / "lora"
    folder.mkdir()
    peft_folder.write(folder, model.method, model.backbone, "tiny-bert", None)
    return folder


@pytest.mark.parametrize(
    ("run", "task"), [("tiny_run", "text_file"), ("tiny_pair_run", "mrpc"), ("tiny_score_run", "stsb")]
)
def test_out_and_in_again_predicts_the_same_bit_for_bit(request, tmp_path, bring_in, capsys, run, task):
    record = request.getfixturevalue(run)
    assert export.main([str(record.folder), "--to", "adapters", "--output", str(tmp_path / "made")]) == 0
    assert "Read back by peftbench" in (out := capsys.readouterr().out) and "PEFTBENCH_ADAPTERS_PYTHON" in out
    imported = bring_in(tmp_path / "made", task)
    ours, before = imported.read(), record.read()
    assert ours.status == "imported" and ours.id != before.id and ours.method == before.method
    assert ours.time is None and ours.imported.library == "adapters" and ours.parameters == before.parameters
    assert ours.metrics["validation"] == before.metrics["validation"]
    predicted = [r.predictions(r.read().evaluation("validation")) for r in (record, imported)]
    assert predicted[0] == predicted[1]
    models = [load_run_model(r, torch.device("cpu")) for r in (record, imported)]
    assert all(torch.equal(*pair) for pair in zip(*(m.backbone.head.values() for m in models), strict=True))
    tensors = [load_file(r.adapter_dir / "adapter.safetensors") for r in (record, imported)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_the_other_commands_take_it(as_peft, bring_in, tmp_path, capsys):
    record = bring_in(as_peft, "text_file")
    assert "accuracy" in (out := capsys.readouterr().out) and "training" not in out
    where = ["--output-dir", str(bring_in.outputs)]
    assert predict.main([record.folder.name, "good film", *where]) == 0
    assert evaluate.main([record.folder.name, "--split", "test", *where]) == 0
    assert export.main([record.folder.name, "--to", "adapters", "--output", str(tmp_path / "again"), *where]) == 0
    card = (tmp_path / "again" / "README.md").read_text()
    assert "from a folder of peft" in card and "| test | 9 | accuracy |" in card and "seed" not in card
    capsys.readouterr()
    assert runs.main(where) == 0
    assert "imported" in (out := capsys.readouterr().out) and "trainer" not in out
    assert runs.main([record.folder.name, *where]) == 0
    assert "library peft" in capsys.readouterr().out


def test_no_table_takes_it_for_a_run_of_its_own(as_peft, bring_in, tiny_run):
    """A table finds its runs by their ids; a config that came from outside has one of its own."""
    record = bring_in(as_peft, "text_file")
    config = record.config()
    assert config["method"] == tiny_run.config()["method"]
    assert run_id({key: value for key, value in config.items() if key != "imported"}) != record.folder.name


def test_twice_is_refused_and_forced(as_peft, bring_in):
    record = bring_in(as_peft, "text_file")
    with pytest.raises(UserError, match=f"imported already: {record.folder}; force=true"):
        bring_in(as_peft, "text_file")
    assert bring_in(as_peft, "text_file", "force=true") == record


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=lora"], "the folder says which method it is"),
        (["method.rank=3"], "the folder says which method it is"),
        (["task=mrpc"], "say it as --task"),
        (["trainer.lrr=3"], "lrr"),
        (["task.labels=[good,bad]"], "classes of .* are bad, good, those of task text_file good, bad: choose the task"),
    ],
)
def test_settings_that_make_no_sense(tiny_run, tmp_path, bring_in, overrides, message):
    export.main([str(tiny_run.folder), "--to", "adapters", "--output", str(tmp_path / "made")])
    with pytest.raises(UserError, match=message):
        bring_in(tmp_path / "made", "text_file", *overrides)
    assert not bring_in.outputs.exists()


def test_a_text_adapter_for_images_is_refused(as_peft, tmp_path, tiny_model_dir, bring_in):
    for split, label in itertools.product(("train", "validation"), ("bad", "good")):
        (tmp_path / "pictures" / split / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / split / label / "0.png")
    line = [str(as_peft), "--task", "image_folder", f"task.dir={tmp_path / 'pictures'}", "model=local"]
    line += [f"model.path={tiny_model_dir}", f"output_dir={bring_in.outputs}", "device=cpu"]
    with pytest.raises(UserError, match="task=image_folder has images, and model=local reads texts"):
        import_command.main(line)
    assert not bring_in.outputs.exists()


def other_model(tmp_path, tiny_model_dir, **settings):
    from transformers import AutoTokenizer

    folder = tmp_path / "other"
    tiny_model("bert", seed=5, **settings).base_model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return f"model.path={folder}"


def test_a_foreign_base_model_is_refused(tiny_run, as_peft, tmp_path, tiny_model_dir, bring_in, capsys):
    other = other_model(tmp_path, tiny_model_dir)
    export.main([str(tiny_run.folder), "--to", "adapters", "--output", str(tmp_path / "made")])
    with pytest.raises(UserError, match="was trained on another base model than local in .*other: set model="):
        bring_in(tmp_path / "made", "text_file", other)
    (tmp_path / "made" / "peftbench.json").unlink()
    bring_in(tmp_path / "made", "text_file", other)  # it says no more than that it is a bert model
    capsys.readouterr()
    assert import_command.main(bring_in.line(as_peft, "text_file", other, "experiment=b")) == 0
    assert "warning: " in (err := capsys.readouterr().err) and "calls its base model tiny-bert" in err


def test_a_base_model_of_another_size_is_refused(as_peft, tmp_path, tiny_model_dir, bring_in):
    other = other_model(tmp_path, tiny_model_dir, hidden_size=48)
    with pytest.raises(UserError, match="cannot import .*lora, of base model tiny-bert, on local: .* 32 .* 48"):
        bring_in(as_peft, "text_file", other)
    assert not bring_in.outputs.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "adapter_config.json").unlink(),
            "has no adapter_config.json, as Hugging",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "adapter_config.json is no JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "names no adapter with its config"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"1234567890"), "is cut short or damaged"),
        (lambda folder: (folder / "peftbench.json").write_text("{}"), "is not as peftbench wrote it: remove it"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(as_peft, bring_in, damage, message):
    damage(as_peft)
    with pytest.raises(UserError, match=message) as raised:
        bring_in(as_peft, "text_file")
    assert "\n" not in str(raised.value) and not bring_in.outputs.exists()


def test_what_is_no_adapter_at_all(tiny_model_dir, tmp_path, bring_in):
    with pytest.raises(UserError, match="there is no folder .*nowhere"):
        bring_in(tmp_path / "nowhere", "text_file")
    with pytest.raises(UserError, match="an ordinary model is used as model=local model.path=FOLDER"):
        bring_in(tiny_model_dir, "text_file")


def test_a_head_of_another_width_is_refused(as_peft, bring_in):
    path = as_peft / "adapter_model.safetensors"
    tensors = load_file(path)
    for leaf in ("weight", "bias"):
        key = f"base_model.model.classifier.{leaf}"
        tensors[key] = torch.cat([tensors[key], tensors[key][:1]])
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"head's .*classifier.* where task and model make it 2.*: choose the task"):
        bring_in(as_peft, "text_file")


def test_nothing_is_left_of_an_import_that_cannot_be_written(as_peft, bring_in, monkeypatch):
    from peftbench.serving import import_run

    def full(*given):
        raise UserError("Cannot write …: No space left on device.")

    monkeypatch.setattr(import_run, "save_adapter", full)
    with pytest.raises(UserError, match="No space left"):
        bring_in(as_peft, "text_file")
    assert not list(bring_in.outputs.rglob("*.json"))


def test_a_forced_import_that_fails_removes_no_other_s_files(as_peft, bring_in, monkeypatch):
    from peftbench.serving import import_run

    record = bring_in(as_peft, "text_file")
    (record.folder / "notes.txt").write_text("mine")

    def taken(*given):
        raise TakenOverError("another process took it over")

    for error in (taken, lambda *given: 1 / 0):
        monkeypatch.setattr(import_run, "save_adapter", error)
        with pytest.raises((TakenOverError, ZeroDivisionError)):
            bring_in(as_peft, "text_file", "force=true")
        assert (record.folder / "notes.txt").read_text() == "mine"
    monkeypatch.undo()
    assert bring_in(as_peft, "text_file").read().status == "imported"


def test_the_config_says_where_it_is_from(as_peft, bring_in):
    record = bring_in(as_peft, "text_file", "experiment=from")
    assert record.config()["imported"]["folder"] == str(as_peft)
    assert json.loads(record.result_path.read_text())["imported"]["digest"] == record.config()["imported"]["digest"]
    assert record.read().environment.precision == "fp32"


def test_imported_adapters_are_fused_with_trained_ones(bring_in, train_tiny, tmp_path):
    trained, other = (
        train_tiny("opinions", "method=pfeiffer", "method.bottleneck=4", f"seed={seed}", "trainer.epochs=1")
        for seed in (0, 1)
    )
    assert export.main([str(other.folder), "--to", "adapters", "--output", str(tmp_path / "library")]) == 0
    imported = bring_in(tmp_path / "library", "text_file")
    parts = f"method.adapters={{own: {trained.folder}, theirs: {imported.folder}}}"
    fusion = train_tiny("opinions", "method=fusion", parts, "trainer.epochs=1")
    assert fusion.read().origin.parts["theirs"].run == imported.folder.name
    stacks = load_file(fusion.adapter_dir / "adapter.safetensors")
    own = load_file(other.adapter_dir / "adapter.safetensors")
    for layer in range(2):
        stack = stacks[f"method.adapters.bottlenecks.{layer}.down_weight"]
        assert torch.equal(stack[1], own[f"method.bottlenecks.{layer}.down_weight"])

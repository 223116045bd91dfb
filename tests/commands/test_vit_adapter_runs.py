"""ViT-Adapter from the command line: masks, boxes and classes; a run taken up again; what does not fit."""

import json
import shutil

import pytest
from dense_data import write_detection, write_segmentation, write_tiny_dinov2
from safetensors.torch import load_file

from peftbench.cli import main
from peftbench.runs.record import Record

pytest.importorskip("pycocotools", reason="the vision extra is not installed")

WRITE = {"segmentation": write_segmentation, "detection": write_detection}
SMALL = ["method=vit_adapter", "method.interactions=2", "method.heads=4", "method.prior_width=4"]


def arguments(tmp_path, task, *more):
    """A command that trains on drawn pictures, which it writes."""
    lines = [f"task={task}", "model=local", f"model.path={tmp_path / 'model'}", f"output_dir={tmp_path / 'outputs'}"]
    if not (tmp_path / "model").exists():
        write_tiny_dinov2(tmp_path / "model")
    if write := WRITE.get(task.removesuffix("_folder")):
        lines.append(f"task.dir={tmp_path / task}")
        if not (tmp_path / task).exists():
            write(tmp_path / task)
    lines += ["trainer.epochs=2", "trainer.batch_size=4", "device=cpu", "threads=1", "trainer.precision=fp32"]
    return ["train", *lines, "measure.latency=false", *SMALL, *more]


def only_record(outputs):
    (path,) = outputs.glob("*/*/result.json")
    return Record(path.parent)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("segmentation", ["task.head=linear", "method.train_backbone=false"]),
        ("segmentation", ["task.head=upernet"]),
        ("detection", ["method.train_backbone=false", "trainer.precision=bf16"]),
    ],
)
def test_a_run_scores_again_as_it_did(kind, more, tmp_path, capsys):
    assert main(arguments(tmp_path, f"{kind}_folder", *more)) == 0, capsys.readouterr().err
    capsys.readouterr()
    record = only_record(tmp_path / "outputs")
    assert main(["evaluate", str(record.folder), "--split", "validation", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["metrics"] == pytest.approx(record.read().evaluation("validation").metrics, abs=1e-4)


@pytest.mark.long
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path, capsys, monkeypatch):
    """The running means of the batch norms are part of what a checkpoint holds."""
    from peftbench.training.progress import Progress

    line = arguments(tmp_path, "segmentation_folder")
    assert main(line) == 0
    whole = load_file(only_record(tmp_path / "outputs").adapter_dir / "adapter.safetensors")
    shutil.rmtree(tmp_path / "outputs")
    save = Progress.save

    def save_and_stop(*args):
        save(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "save", save_and_stop)
        assert main(line) != 0
    assert main(line) == 0, capsys.readouterr().err
    parted = load_file(only_record(tmp_path / "outputs").adapter_dir / "adapter.safetensors")
    assert whole.keys() == parted.keys()
    assert any("running_mean" in name for name in whole)
    assert all(whole[name].equal(parted[name]) for name in whole)


@pytest.mark.long
def test_classes_are_told_from_the_pyramid(tmp_path, capsys):
    line = arguments(tmp_path, "digits", "task.image_size=24", "method.train_backbone=false", "trainer.max_steps=3")
    assert main(line) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    assert "on a frozen ViT is ours" in shown.out + shown.err
    assert "the classifier on ViT-Adapter's pyramid is ours" in shown.out + shown.err
    kept = load_file(only_record(tmp_path / "outputs").adapter_dir / "adapter.safetensors")
    assert kept["head.head.classifier.weight"].shape == (10, 4 * kept["method.levels"].shape[1])


def test_texts_are_refused_in_one_line(capsys):
    assert main(["train", "method=vit_adapter", "model=minilm", "task=stsb_binary"]) == 2
    error = capsys.readouterr().err
    assert "method=vit_adapter is for images" in error and error.count("\n") == 1

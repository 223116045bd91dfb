"""A run on images as a user has it: trained, continued, scored again, asked, tabulated; and mistakes."""

import csv
import json
import shutil
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

import peftbench
from peftbench.cli import main
from peftbench.runs.record import Record
from peftbench.serving.exchange import peft_folder
from peftbench.serving.load import load_run_model

_TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a tiny random DINOv2, a DINOv3 and a ViT whose positions are of one size."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**_TINY, mlp_ratio=2)).save_pretrained(folder / "dinov2")
    size = {"height": 32, "width": 32}
    BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=size).save_pretrained(folder / "dinov2")
    ViTModel(ViTConfig(**_TINY, intermediate_size=32), add_pooling_layer=False).save_pretrained(folder / "vit")
    ViTImageProcessorPil(size=size).save_pretrained(folder / "vit")
    DINOv3ViTModel(DINOv3ViTConfig(**_TINY, intermediate_size=32)).save_pretrained(folder / "dinov3")
    processor = {"image_processor_type": "DINOv3ViTImageProcessorFast", "size": size, "image_mean": [0.4, 0.5, 0.6]}
    (folder / "dinov3" / "preprocessor_config.json").write_text(json.dumps(processor))  # as the hub's checkpoints have
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Bright and dark images, 24 to train on, 8 to judge by."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4)):
        for label, low in (("dark", 0), ("bright", 180)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(low, low + 70, (30, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def command(models, pictures, tmp_path_factory):
    """A function that returns the words of a training command."""
    outputs = tmp_path_factory.mktemp("outputs")

    def words(*overrides, model="dinov2"):
        return [
            *("train", "task=image_folder", f"task.dir={pictures}", "model=local", f"model.path={models / model}"),
            *("trainer.epochs=3", "trainer.batch_size=8", "trainer.precision=fp32", "device=cpu", "threads=1"),
            *("measure.latency=false", f"output_dir={outputs}", "method=lora", "trainer.lr=0.01", *overrides),
        ]

    words.outputs = outputs
    return words


@pytest.fixture(scope="module")
def run(command):
    """A finished run."""
    assert main(command("task.augment=[flip,crop]")) == 0
    (folder,) = command.outputs.glob("default/lora-image_folder-*")
    return Record(folder)


def test_it_learns_and_its_record_says_from_what(run):
    result = run.read()
    assert result.evaluations[0].metrics["accuracy"] == 1.0 and result.examples == {"train": 24, "validation": 8}
    assert result.parameters.method == 2 * 4 * 16 * 8


def test_kept_states_give_the_same_training(command):
    line = command("method=head", "task.augment=[]", "experiment=kept")
    for kept in ("false", "true"):
        assert main([*line, f"trainer.cache_frozen={kept}", "force=true"]) == 0
        (folder,) = command.outputs.glob("kept/head-*")
        rows = [json.loads(row) for row in (folder / "history.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in rows if "validation" in row]
        if kept == "false":
            before = losses
    assert losses == pytest.approx(before, rel=1e-5) and len(losses) == 3


def test_scored_again_it_is_the_same(run, capsys):
    assert main(["evaluate", str(run.folder), "--split", "validation", "--merged"]) == 0
    assert "100.0 %" in capsys.readouterr().out


def test_it_answers_files_folders_and_pictures(run, pictures, capsys):
    dark, bright = pictures / "validation" / "dark" / "0.png", pictures / "validation" / "bright"
    assert main(["predict", str(run.folder), str(dark), str(bright), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["prediction"] for answer in answers] == ["dark"] + ["bright"] * 4
    assert answers[0]["image"] == str(dark)
    assert main(["predict", str(run.folder), str(pictures / "validation"), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == [
        str(pictures / "validation" / label / f"{number}.png") for label in ("bright", "dark") for number in range(4)
    ], "a folder of class folders is answered whole"
    predictor = peftbench.load(run.folder)
    found = predictor.predict([dark.read_bytes(), Image.open(dark), str(dark), ""])
    assert [answer.prediction for answer in found] == ["dark", "dark", "dark", None]
    assert found[0].probabilities == found[1].probabilities == found[2].probabilities


def test_an_image_that_cannot_be_read_costs_its_own_answer(run, pictures, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for number in range(4):
        shutil.copy(pictures / "validation" / "dark" / f"{number}.png", mixed)
    for cut in ("1.png", "3.png"):
        (mixed / cut).write_bytes((mixed / cut).read_bytes()[:40])
    output = tmp_path / "answers.csv"
    assert main(["predict", str(run.folder), str(mixed), "--output", str(output)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"peftbench: no answer for 2 images: {mixed / '1.png'} ") and str(mixed / "3.png") in said
    with output.open(newline="") as file:
        answers = [(row["image"], row["prediction"], bool(row["dark"])) for row in csv.DictReader(file)]
    assert answers == [
        *((str(mixed / "0.png"), "dark", True), (str(mixed / "1.png"), "", False)),
        *((str(mixed / "2.png"), "dark", True), (str(mixed / "3.png"), "", False)),
    ]


@pytest.fixture
def read_in_a_fork(monkeypatch):
    """Have what was exported loaded by a forked process."""

    def run(line, env, **options):
        return forked.run(line[1:], env={name: env[name] for name in env if name != "HF_HUB_OFFLINE"}, **options)

    monkeypatch.setattr("peftbench.serving.export.subprocess", SimpleNamespace(run=run))


@pytest.mark.parametrize(
    ("to", "lines"),
    [
        ("merged", ['model = AutoModelForImageClassification.from_pretrained("made")', "return_tensors"]),
        ("peft", ['model = PeftModel.from_pretrained(base, "made")', "id2label={0: 'bright', 1: 'dark'}"]),
    ],
)
def test_other_libraries_answer_as_the_run(run, read_in_a_fork, to, lines, tmp_path, capsys):
    if to == "peft":
        pytest.importorskip("peft", reason="needs the extra peft")
    assert main(["export", str(run.folder), "--to", to, "--output", str(tmp_path / "made")]) == 0
    assert "8 predictions equal" in capsys.readouterr().out
    card = (tmp_path / "made" / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card and all(line in card for line in lines)


def test_what_cannot_be_exported_of_an_image_run(run, tmp_path, capsys):
    assert main(["export", str(run.folder), "--to", "adapters", "--output", str(tmp_path / "made")]) == 2
    assert "task image_folder is of images; their runs are exported to peft, or merged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["image_folder", "task.image_size=30"], "30 x 30 pixels do not fall into the model's patches of 8 x 8"),
        (
            ["text_file", "task.splits.train={rows}", "task.splits.validation={rows}"],
            "has texts, and model=local reads",
        ),
        (
            ["segmentation_folder", "task.dir=/nowhere"],
            "is of segmentation, and runs that answer a whole text or image",
        ),
    ],
)
def test_an_image_adapter_is_imported_for_what_its_model_reads_alone(
    run, command, models, tmp_path, capsys, settings, said
):
    model = load_run_model(run, torch.device("cpu"))
    (tmp_path / "made").mkdir()
    peft_folder.write(tmp_path / "made", model.method, model.backbone, "dinov2", None)
    (tmp_path / "rows.csv").write_text("text,label\na,x\nb,y\n")
    task, *overrides = (word.format(rows=tmp_path / "rows.csv") for word in settings)
    folder = [] if task != "image_folder" else [word for word in command() if word.startswith("task.dir")]
    line = ["import", str(tmp_path / "made"), "--task", task, *folder, *overrides, "model=local", "device=cpu"]
    assert main([*line, f"model.path={models / 'dinov2'}", f"output_dir={tmp_path / 'outputs'}"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert said in error and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("model", ["dinov2", "vit"])
def test_any_size_of_image_that_the_patch_divides(command, model, read_in_a_fork, tmp_path, capsys):
    line = command(
        "task.image_size=[16,24]", "trainer.max_steps=2", "experiment=sizes", "measure.latency=true", model=model
    )
    assert main([*line, "measure.seconds=0.01", "measure.batches=[1]"]) == 0
    folder = max(command.outputs.glob("sizes/*"), key=lambda path: path.stat().st_mtime)
    (setting,) = Record(folder).read().latency.result["settings"]
    assert setting["length"] == 6
    if model == "vit":  # elsewhere it has to be told that it interpolates its positions
        assert main(["export", str(folder), "--output", str(tmp_path / "made")]) == 0
        assert "8 predictions equal" in capsys.readouterr().out
        assert "interpolate_pos_encoding=True" in (tmp_path / "made" / "README.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.image_size=20"], "20 x 20 pixels do not fall into the model's patches of 8 x 8"),
        (["task=mrpc"], "task=mrpc has texts, and model=local reads images"),
        (["task.max_length=16"], "max_length"),
        (["task.dir=/nowhere"], "no such task folder: /nowhere"),
        (["method=head", "trainer.cache_frozen=true"], "task.augment changes the images in every epoch"),
    ],
)
def test_a_mistake_is_one_line(command, capsys, overrides, said, data_dir, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_DATA", str(data_dir))
    line = command(*overrides)
    if "task=mrpc" in overrides:
        line = [word for word in line if not word.startswith(("task=image", "task.dir"))]
    assert main(line) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error and "should not have happened" not in error


def test_images_for_a_model_of_texts(command, tiny_model_dir, capsys):
    line = [word for word in command(f"model.path={tiny_model_dir}") if "dinov2" not in word]
    assert main(line) == 2
    assert "task=image_folder has images, and model=local reads texts" in capsys.readouterr().err


def test_a_model_without_its_processor_is_refused(command, models, tmp_path, capsys):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((models / "dinov2" / name).read_bytes())
    assert main(command(f"model.path={tmp_path}")[:]) == 2
    assert "it has no preprocessor_config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/nowhere.png"], "no such image: /nowhere.png"),
        ([], "is no image that can be read"),
        (["--file", "{tmp}/texts.csv"], "no column 'image' among 'sentence'"),
    ],
    ids=["missing", "damaged", "texts"],
)
def test_images_that_cannot_be_answered(run, tmp_path, words, said, capsys):
    (tmp_path / "x.png").write_text("nothing")
    (tmp_path / "texts.csv").write_text("sentence\nx.png\n")
    words = [word.format(tmp=tmp_path) for word in words]
    assert main(["predict", str(run.folder), *(words or [str(tmp_path / "x.png")])]) == 2
    assert said in capsys.readouterr().err
    assert main(["serve", str(run.folder)]) == 2
    assert "is of images: several runs on one backbone answer texts alone" in capsys.readouterr().err


def test_a_model_that_its_library_has_no_classifier_for_is_not_exported(command, tmp_path, capsys):
    assert main(command("experiment=bare", "trainer.epochs=1", model="dinov3")) == 0
    (folder,) = command.outputs.glob("bare/lora-*")
    for to in ("merged", "peft"):
        capsys.readouterr()
        assert main(["export", str(folder), "--to", to, "--output", str(tmp_path / to)]) == 2
        error = capsys.readouterr().err
        assert "transformers has no image classifier on a DINOv3ViTModel" in error and len(error.splitlines()) == 1
        assert not list(tmp_path.iterdir())

"""Segmentation and detection from the command line: trained, recorded, scored again; and what is wrong with data."""

import json
import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dense_data import CLASSES, HEIGHT, WIDTH, write_detection, write_segmentation, write_tiny_dinov2
from PIL import Image
from transformers import BitImageProcessorPil
from wandb_log import read_logs

from peftbench.cli import main
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.runs.record import Record
from peftbench.tasks.detection import coco
from peftbench.tasks.detection.average_precision import average_precision, detection_score, match
from peftbench.tasks.detection.coco import read_annotations
from peftbench.tasks.kinds import load_task
from peftbench.tasks.segmentation.confusion import pixel_confusions, segmentation_score

pytest.importorskip("pycocotools", reason="the vision extra is not installed")

WRITE = {"segmentation": write_segmentation, "detection": write_detection}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_dinov2(tmp_path_factory.mktemp("model") / "tiny-dinov2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {kind: write(folder / kind) for kind, write in WRITE.items()}


@pytest.fixture
def own(data, tmp_path):
    """Copies of the data, for a test to damage."""
    return {kind: shutil.copytree(folder, tmp_path / kind) for kind, folder in data.items()}


def arguments(kind, folder, model, outputs, *more):
    lines = [f"task={kind}_folder", f"task.dir={folder}", "model=local", f"model.path={model}", f"output_dir={outputs}"]
    lines += ["trainer.epochs=2", "trainer.batch_size=4", "trainer.lr=0.01", "device=cpu", "threads=1"]
    return [*lines, "trainer.precision=fp32", "measure.latency=false", *more]


def only_record(outputs):
    (path,) = outputs.glob("*/*/result.json")
    return Record(path.parent)


@pytest.mark.parametrize("size", ["[32,32]", "[32,48]", "[40,40]"])
def test_the_whole_picture_is_seen_where_masks_and_boxes_are_of_all(size, data):
    processor = BitImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 32, "width": 32}, do_normalize=False, do_rescale=False
    )
    sites = SimpleNamespace(processor=processor, image=SimpleNamespace(patch=(8, 8)))
    lines = ["task=segmentation_folder", f"task.dir={data['segmentation']}", f"task.image_size={size}"]
    task = load_task(resolve(compose(lines)).task)
    batch = task.encode(task.splits["validation"], sites).batch([0])
    bright = batch["pixel_values"][0, 1] > 150  # squares are, in this channel
    square = torch.from_numpy(np.asarray(task.splits["validation"].labels[0]) == 1)
    assert bright.shape == square.shape and (bright == square).float().mean() > 0.97


@pytest.mark.parametrize("kind", WRITE)
def test_a_run_is_trained_recorded_and_scored_again_the_same(kind, data, model, tmp_path, capsys):
    line = arguments(kind, data[kind], model, tmp_path, "method=lora", "task.augment=[flip,crop]")
    assert main(["train", *line]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert ("mIoU" if kind == "segmentation" else "AP50") in shown and "test, 4 examples" in shown
    record = only_record(tmp_path)
    result = record.read()
    primary = {"segmentation": "miou", "detection": "ap"}[kind]
    assert result.primary == primary
    for evaluation in result.evaluations:
        answers = record.predictions(evaluation)
        if kind == "segmentation":
            again = segmentation_score("miou", answers.predictions.sum(0))
        else:
            again = detection_score("ap", average_precision(match(answers.labels, answers.predictions, 2)))[0]
        assert again == pytest.approx(evaluation.metrics[primary], abs=1e-9)
    pictures = sorted((record.folder / "pictures").iterdir())
    assert [path.name for path in pictures[:2]] == ["0-prediction.jpg", "0-truth.jpg"] and len(pictures) == 8
    assert all(f"pictures/{path.name}" in result.files for path in pictures)
    assert main(["evaluate", str(record.folder), "--split", "test", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    first = result.evaluation("test").metrics
    assert scored["metrics"] == pytest.approx(first, abs=1e-5)
    elsewhere = shutil.copytree(data[kind] / "test", tmp_path / "moved" / "test").parent  # of no other split
    assert main(["evaluate", str(record.folder), "--split", "test", "--task-dir", str(elsewhere), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == pytest.approx(first, abs=1e-5)


def test_a_class_that_no_training_label_has_is_named(own):
    for path in (own["segmentation"] / "train" / "masks").iterdir():  # 255, as many draw an object, is no class
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 1, 255, mask).astype(np.uint8)).save(path)
    annotations = own["detection"] / "train" / "annotations.json"
    content = json.loads(annotations.read_text())
    kept = content["categories"][0]["id"]
    content["annotations"] = [each for each in content["annotations"] if each["category_id"] == kept]
    annotations.write_text(json.dumps(content))
    for kind, unit in (("segmentation", "pixel"), ("detection", "box")):
        task = load_task(resolve(compose([f"task={kind}_folder", f"task.dir={own[kind]}"])).task)
        assert f"no training {unit} is of class {task.labels[1]}" in task.warnings({})


@pytest.mark.long
def test_wandb_gets_the_pictures(data, model, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    more = ("method=head", "trainer.max_steps=1", "logger=wandb", "logger.mode=offline")
    assert main(["train", *arguments("segmentation", data["segmentation"], model, tmp_path, *more)]) == 0
    (log,) = read_logs(only_record(tmp_path).folder)
    (row,) = [row for row in log.rows if "pictures/0-truth" in row]
    assert row["pictures/0-prediction"]["_type"] == "image-file" and row["pictures/0-prediction"]["width"] == WIDTH


@pytest.mark.parametrize("kind", WRITE)
def test_pictures_of_ones_own_get_masks_or_boxes(kind, data, model, tmp_path, capsys):
    line = arguments(kind, data[kind], model, tmp_path / "out", "method=head", "trainer.epochs=6")
    assert main(["train", *line]) == 0
    record = only_record(tmp_path / "out")
    own = data[kind] / "test" / "images"
    wide = tmp_path / "wide.png"
    Image.open(own / "00.png").resize((160, 40)).save(wide)  # of another shape: padded, and told in its own pixels
    capsys.readouterr()
    found = tmp_path / "found.v2"
    assert main(["predict", str(record.folder), str(own), str(wide), "--output", str(found), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5 == len(list((found / "overlays").iterdir()))
    assert all(Image.open(entry["overlay"]).size == Image.open(entry["image"]).size for entry in lines)
    scores = record.read().evaluation("test").metrics
    if kind == "segmentation":
        assert all(Image.open(entry["mask"]).size == Image.open(entry["image"]).size for entry in lines)
        masks = [np.asarray(Image.open(found / "masks" / f"0{n}.png")) for n in range(4)]
        truth = [np.asarray(Image.open(data[kind] / "test" / "masks" / f"0{n}.png")) for n in range(4)]
        again = segmentation_score("miou", pixel_confusions(np.stack(masks), np.stack(truth), 3).sum(0))
        assert again == pytest.approx(scores["miou"], abs=1e-6)
        drawn = shutil.copytree(data[kind] / "test", tmp_path / "drawn")
        before = (drawn / "masks" / "00.png").read_bytes()
        assert main(["predict", str(record.folder), str(own), "--output", str(drawn)]) == 2
        assert "no answer of an earlier predict" in capsys.readouterr().err
        assert (drawn / "masks" / "00.png").read_bytes() == before and not (drawn / "overlays").exists()
        assert main(["predict", str(record.folder), str(own), "--output", str(found)]) == 0
    else:
        content = json.loads((found / "boxes.json").read_text())
        assert [image["file_name"] for image in content["images"]] == [*(f"0{n}.png" for n in range(4)), "wide.png"]
        for entry in content["annotations"]:
            image = content["images"][entry["image_id"] - 1]
            x, y, width, height = entry["bbox"]
            assert (
                x >= -0.01
                and y >= -0.01
                and x + width <= image["width"] + 0.02
                and y + height <= image["height"] + 0.02
            )
        read = read_annotations(found / "boxes.json", ["square", "bar"])  # as any other file of boxes
        assert sum(len(picture.boxes) for picture in read) == len(content["annotations"]) > 0
    cut = tmp_path / "cut.png"
    cut.write_bytes(wide.read_bytes()[:40])
    capsys.readouterr()
    assert main(["predict", str(record.folder), str(cut), str(wide), "--output", str(tmp_path / "rest"), "--json"]) == 2
    shown = capsys.readouterr()
    unread, line = map(json.loads, shown.out.splitlines())
    assert unread == {"image": str(cut), "found": None} and line["image"] == str(wide)
    assert f"no answer for 1 image: {cut} is" in shown.err
    for output in ("found.csv", "boxes.json", str(wide)):
        assert main(["predict", str(record.folder), str(own), "--output", output]) == 2
        assert "name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("kind", WRITE)
def test_an_interrupted_run_ends_as_an_undisturbed_one(kind, data, model, tmp_path, monkeypatch):
    """The running means of batch norms are of the checkpoint too."""
    from peftbench.training.progress import Progress

    line = arguments(kind, data[kind], model, tmp_path / "whole", "method=head", "trainer.epochs=3")
    assert main(["train", *line]) == 0
    save = Progress.save

    def save_and_stop(progress, path):
        save(progress, path)
        if len(progress.fitted.rows) == 2:
            raise KeyboardInterrupt

    line = arguments(kind, data[kind], model, tmp_path / "halted", "method=head", "trainer.epochs=3")
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "save", save_and_stop)
        assert main(["train", *line]) == 130
    assert main(["train", *line]) == 0
    whole, halted = (only_record(tmp_path / name).read() for name in ("whole", "halted"))
    assert [e.metrics for e in whole.evaluations] == [e.metrics for e in halted.evaluations]


def test_a_share_of_the_training_pictures_and_classes_of_the_config(data, own, model, tmp_path, capsys):
    (own["segmentation"] / "classes.json").unlink()
    shutil.rmtree(own["segmentation"] / "validation")
    line = arguments("segmentation", own["segmentation"], model, tmp_path, "method=head", "trainer.max_steps=1")
    line += ["task.splits.validation=0.25", f"task.labels=[{','.join(CLASSES)}]", "task.head=upernet"]
    assert main(["train", *line]) == 0
    out = capsys.readouterr().out
    assert "train       9 examples" in out and "validation  3 examples" in out and "void 2.1 %" in out


def test_a_file_of_boxes_is_read_once_for_its_classes_and_once_for_its_boxes(data, monkeypatch):
    read, before = [], coco.parse_json
    monkeypatch.setattr(coco, "parse_json", lambda text: read.append(len(text)) or before(text))
    task = load_task(resolve(compose(["task=detection_folder", f"task.dir={data['detection']}"])).task)
    assert len(read) == 1 + len(task.splits) == 4


def damage(kind, folder, how):
    """Make one mistake in a copy of the data, and return the file that the line must name."""
    image, mask = (folder / "train" / "images" / "03.png"), folder / "train" / "masks" / "03.png"
    annotations = folder / "train" / "annotations.json"
    content = json.loads(annotations.read_text()) if kind == "detection" else {}
    name = {"mask": mask, "image": image, "boxes": annotations}[how.split()[0]]
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    match how:
        case "image cut short":
            image.write_bytes(image.read_bytes()[:90])
        case "image huge":
            header = bytearray(image.read_bytes())
            header[16:24] = (90_000).to_bytes(4, "big") * 2
            header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
            image.write_bytes(bytes(header))
        case "mask with a palette":
            Image.fromarray(values).convert("P").save(mask)
        case "mask of 16 bits":
            Image.fromarray(values.astype(np.uint16)).save(mask)
        case "mask in colour":
            Image.fromarray(values).convert("RGB").save(mask)
        case "mask of another size":
            Image.fromarray(values[:-1]).save(mask)
        case "mask with another class":
            Image.fromarray(values + np.uint8(9)).save(mask)
        case "mask of 4 bits":
            Image.fromarray(values).save(mask, bits=4)
        case "image with a namesake":
            Image.fromarray(values).save(image.with_suffix(".jpg"))
        case "image with a name of its own":
            (image.parent / "more").mkdir()
            image.rename(image.parent / "more" / image.name)
        case "mask cut short":
            mask.write_bytes(mask.read_bytes()[:60])
        case "mask away":
            mask.unlink()
        case "boxes out of the picture":
            content["annotations"][5]["bbox"] = [40, 2, 20, 5]
        case "boxes without area":
            content["annotations"][5]["bbox"] = [4, 2, 0, 5]
        case "boxes of no picture":
            content["annotations"][5]["image_id"] = 99
        case "boxes of no category":
            content["annotations"][5]["category_id"] = 1
        case "boxes without images":
            del content["images"]
        case "boxes no JSON":
            content = None
        case "boxes with a picture elsewhere":
            content["images"][2]["file_name"] = "../../secret.png"
        case "boxes with an odd picture":
            content["images"][2]["file_name"] = "a\0b.png"
        case "boxes with half a character":
            content["images"][2]["file_name"] = "\ud800.png"
        case "boxes of a nameless picture":
            content["images"][2]["file_name"] = None
        case "boxes of a picture twice":
            content["images"][2]["file_name"] = "./03.png"
        case "boxes of no pictures":
            content["images"] = content["annotations"] = []
        case "boxes of an endless picture":
            content["images"][2]["width"] = 10**400
        case "boxes on the edge":
            content["annotations"][5]["bbox"] = [48.5, 2, 0.4, 5]
        case "boxes of a digit":
            content["annotations"][5]["bbox"] = "1234"
        case "boxes of a nameless class":
            content["categories"][0]["name"] = " "
        case "boxes of a class of two lines":
            content["categories"][0]["name"] = "red\ncell"
        case "boxes of crowds alone":
            content["annotations"] = [{**entry, "iscrowd": 1} for entry in content["annotations"]]
        case "boxes of other sizes":
            content["images"][2]["width"] = 50
    if how.startswith("boxes"):
        annotations.write_text("{" if content is None else json.dumps(content))
    return name


MISTAKES = {
    "segmentation": [
        ("image cut short", "damaged"),
        ("image huge", "pixels"),
        ("mask with a palette", "palette"),
        ("mask of 16 bits", "16-bit"),
        ("mask in colour", "colour image"),
        ("mask of another size", "48 x 31"),
        ("mask with another class", "9 is no class"),
        ("mask of 4 bits", "4 bits"),
        ("image with a namesake", "03.jpg and 03.png would share a mask"),
        ("image with a name of its own", "pictures lie directly in"),
        ("mask cut short", "no mask that can be read"),
        ("mask away", "has no mask"),
    ],
    "detection": [
        ("image cut short", "damaged"),
        ("boxes out of the picture", "annotation 6 of 02.png: the box [40, 2, 20, 5] lies outside"),
        ("boxes without area", "has no area"),
        ("boxes of no picture", "no image 99"),
        ("boxes of no category", "category 1 is not among"),
        ("boxes without images", "no list of images"),
        ("boxes no JSON", "is no JSON"),
        ("boxes with a picture elsewhere", "lies outside of"),
        ("boxes with an odd picture", "has a character that no file name has"),
        ("boxes with half a character", "has a character that no file name has"),
        ("boxes of a nameless picture", "an image needs id, file_name"),
        ("boxes of a picture twice", "image 03.png stands there twice"),
        ("boxes of no pictures", "lists no images"),
        ("boxes of an endless picture", "must be 1 to 20,000 pixels"),
        ("boxes on the edge", "lies on the edge of the picture"),
        ("boxes of a digit", "it needs image_id, category_id and bbox"),
        ("boxes of a nameless class", "a class needs a name of one line"),
        ("boxes of a class of two lines", "a class needs a name of one line"),
        ("boxes of crowds alone", "no box at all of a single object"),
        ("boxes of other sizes", "48 x 32 pixels"),
    ],
}


def test_ids_written_as_text_are_those_written_as_numbers(own):
    path = own["detection"] / "train" / "annotations.json"
    content = json.loads(path.read_text())
    config = resolve(compose(["task=detection_folder", f"task.dir={own['detection']}", "task.image_size=32"])).task
    before = load_task(config, ["train"])
    content["annotations"] = [{**entry, "image_id": str(entry["image_id"])} for entry in content["annotations"]]
    path.write_text(json.dumps(content))
    assert load_task(config, ["train"]).checksum == before.checksum and before.size == (32, 32)


def test_a_picture_s_name_may_hold_any_space(own):
    folder = own["detection"] / "train"
    path = folder / "annotations.json"
    name = "Screenshot 1.00.00\u202fPM.png"  # as macOS names them
    (folder / "images" / "02.png").rename(folder / "images" / name)
    path.write_text(path.read_text().replace("02.png", name), encoding="utf-8")
    config = resolve(compose(["task=detection_folder", f"task.dir={own['detection']}"]))
    assert len(load_task(config.task, ["train"]).splits["train"]) == 12


@pytest.mark.parametrize(("kind", "how", "said"), [(k, *entry) for k, entries in MISTAKES.items() for entry in entries])
def test_a_mistake_in_the_data_is_one_line_with_the_files_name(kind, how, said, own, model, tmp_path, capsys):
    name = damage(kind, own[kind], how)
    assert main(["train", *arguments(kind, own[kind], model, tmp_path, "method=head")]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and name.name in printed[0] and said in printed[0]
    assert not list(tmp_path.glob("default/*"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.metrics=[accuracy]"], "'accuracy' does not judge masks"),
        (["task.head=center_points"], "task.head=center_points"),
        (["task.image_size=[32]"], "must be one side of a square, or [height,width]"),
        (["task.dir=/nowhere/at/all"], "no such task folder"),
        (["task.labels=[all]"], "task.labels must name 2 to 255 classes, not 1"),
        ([f"task.labels=[{','.join(f'c{n}' for n in range(300))}]"], "task.labels must name 2 to 255 classes, not 300"),
        (["task.labels=['','b','c']"], "task.labels: a class needs a name"),
        (["task.image_size=[9999999,9999999]"], "keeping 12 masks of"),
        (["method=head", "trainer.cache_frozen=true", "task.augment=[]"], "set task.head_layers=1"),
    ],
)
def test_a_mistake_in_the_config_is_one_line(overrides, said, data, model, tmp_path, capsys):
    assert main(["train", *arguments("segmentation", data["segmentation"], model, tmp_path, *overrides)]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0], printed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "no list of categories"),
        ('{"categories": [{"id": 1}], "images": [], "annotations": []}', "a category needs an id"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1}], "annotations": []}', "an image needs id"),
        (
            '{"categories": [{"id": 1, "name": "a"}], "annotations": [], "images": ['
            '{"id": 1, "file_name": "a.png", "width": 2, "height": 2},'
            ' {"id": 1, "file_name": "b.png", "width": 2, "height": 2}]}',
            "two images have the id 1",
        ),
        (
            '{"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1, "file_name": "a", "width": 9, "height": 9}],'
            ' "annotations": [{"id": 5, "image_id": [1], "category_id": 1, "bbox": [1, 1, 2, 2]}]}',
            "annotation 5: it needs image_id",
        ),
    ],
)
def test_odd_files_of_boxes(content, said, tmp_path):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(UserError, match="boxes.json") as caught:
        read_annotations(tmp_path / "boxes.json", ["a"])
    assert said in str(caught.value)

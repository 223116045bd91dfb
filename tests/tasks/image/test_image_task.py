"""Image tasks: read from class folders, prepared by the checkpoint's processor, batched; and mistakes in them."""

import os
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessorPil, ViTImageProcessorPil

from peftbench.config.task import TASK_KINDS, fill_task
from peftbench.errors import UserError
from peftbench.tasks.image.preprocessing import preprocessing_of
from peftbench.tasks.kinds import load_task, reader_of

PROCESSOR = ViTImageProcessorPil(size={"height": 16, "width": 16})
SITES = SimpleNamespace(processor=PROCESSOR)


def write(path, value=0, size=(24, 20), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise + np.uint8(value)).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    """Four images of cats and dogs to train on, two to judge by."""
    for number in range(2):
        write(tmp_path / "train" / "dog" / f"{number}.png", 100 + number)
        write(tmp_path / "train" / "cat" / f"{number}.png", 10 + number)
    write(tmp_path / "val" / "dog" / "a.png", 120)
    write(tmp_path / "val" / "cat" / "b.png", 20, mode="L")
    return tmp_path


def config(folder=None, **fields):
    values = {"name": "pets", "kind": "images", "source": "local", "metrics": ["accuracy"], "image_size": 16}
    return fill_task({**values, "dir": folder and str(folder), **fields})


def test_every_kind_has_a_reader():
    assert all(hasattr(reader_of(kind), "load_task") for kind in TASK_KINDS)


def test_class_folders_become_splits_with_sorted_classes(folder):
    task = load_task(config(folder))
    assert task.labels == ("cat", "dog") and set(task.splits) == {"train", "validation"}
    assert task.splits["train"].labels == [0, 0, 1, 1] and task.splits["validation"].labels == [0, 1]


def test_a_class_is_all_that_is_below_its_folder(folder):
    write(folder / "train" / "cat" / "at home" / "asleep" / "2.png", 30)
    write(folder / "train" / "cat" / ".thumbnails" / "2.png", 30)
    write(folder / "elsewhere" / "3.png", 40)
    (folder / "train" / "cat" / "linked").symlink_to(folder / "elsewhere")
    (folder / "train" / "cat" / "linked too").symlink_to(folder / "elsewhere")
    (folder / "elsewhere" / "loop").symlink_to(folder / "train" / "cat")
    train = load_task(config(folder)).splits["train"]
    assert train.labels == [0, 0, 0, 0, 1, 1]
    assert [Path(name).name for name in train.names if "cat" in name] == ["0.png", "1.png", "2.png", "3.png"]


def test_a_share_of_the_training_images(folder):
    task = load_task(config(folder, splits={"validation": 0.5}))
    assert sorted(task.splits["validation"].labels) == [0, 1] == sorted(task.splits["train"].labels)
    assert not set(task.splits["train"].names) & set(task.splits["validation"].names)


def test_a_split_is_a_folder_inside_the_task_s_wherever_one_stands(folder, tmp_path_factory, monkeypatch):
    (folder / "val").rename(folder / "holdout")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "holdout" / "dog" / "a.png")
    monkeypatch.chdir(elsewhere)
    task = load_task(config(folder, splits={"validation": "holdout", "test": "holdout"}))
    assert [len(task.splits[name]) for name in ("validation", "test")] == [2, 2]
    with pytest.raises(UserError, match="no folder typo in"):
        load_task(config(folder, splits={"validation": "holdout", "test": "typo"}))


class StoredOnHub:
    """What `datasets` loads: two images, and a column of labels."""

    def __init__(self, folder, labels, feature):
        image = datasets.Image()
        paths = [str(folder / "val" / name) for name in ("dog/a.png", "cat/b.png")]
        features = datasets.Features({"image": image, "label": feature})
        self.split = datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features)

    def read(self, monkeypatch, **fields):
        whole = datasets.DatasetDict(dict.fromkeys(("train", "validation"), self.split))
        monkeypatch.setattr("peftbench.tasks.image.sources.load_from_hub", lambda *_: whole)
        return load_task(config(source="hub", id="us/pets", **fields)).splits["validation"].labels


@pytest.mark.parametrize(
    ("labels", "feature", "read"),
    [
        ([1, 0], datasets.ClassLabel(names=["cat", "dog"]), [1, 0]),
        ([-1, -1], datasets.ClassLabel(names=["cat", "dog"]), None),
        (["dog", "cat"], datasets.Value("string"), [1, 0]),
        ([None, None], datasets.Value("string"), None),
    ],
)
def test_classes_of_the_hub(folder, monkeypatch, labels, feature, read):
    assert StoredOnHub(folder, labels, feature).read(monkeypatch, labels=["cat", "dog"]) == read


def test_what_the_hub_s_columns_lack_is_one_line(folder, monkeypatch):
    names = datasets.ClassLabel(names=["cat", "dog"])
    with pytest.raises(UserError, match="row 1 has no class"):
        StoredOnHub(folder, [0, -1], names).read(monkeypatch)
    with pytest.raises(UserError, match="are all hidden"):
        StoredOnHub(folder, [-1, -1], names).read(monkeypatch)
    with pytest.raises(UserError, match="column 'label' of hub us/pets holds no images"):
        StoredOnHub(folder, [0, 1], names).read(monkeypatch, image="label", label="image")


def test_a_batch_is_what_the_processor_makes(folder):
    task = load_task(config(folder))
    data = task.encode_split("train", SITES)
    batch = data.batch([2, 0])
    images = [task.splits["train"].open(row) for row in (2, 0)]
    expected = PROCESSOR(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values"], expected, rtol=0, atol=1e-5)
    assert batch["labels"].tolist() == [1, 0] and data.timed_sizes([64]) == [(16, 16)]
    assert data.subset([3, 1]).batch([1])["pixel_values"].equal(data.batch([1])["pixel_values"])


def test_a_processor_that_crops_does_so_at_any_size():
    processor = BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    at_112 = preprocessing_of(processor, 112)
    assert at_112.resizing["size"] == {"shortest_edge": 128} and at_112.size == (112, 112)
    assert preprocessing_of(processor, None).size == (224, 224)
    image = Image.fromarray(np.zeros((60, 90, 3), np.uint8))
    assert preprocessing_of(processor, (28, 42)).pixels([image]).shape == (1, 3, 28, 42)


def test_augmentation_is_of_training_alone_and_the_same_for_an_epoch(folder):
    data = load_task(config(folder, augment=["flip", "crop"])).encode_split("train", SITES)
    plain = data.batch([0, 1, 2, 3])["pixel_values"]
    first, again, second = (data.augmented(0, e).batch([0, 1, 2, 3])["pixel_values"] for e in (0, 0, 1))
    assert first.equal(again) and not first.equal(plain) and not first.equal(second)
    assert data.batch([0, 1, 2, 3])["pixel_values"].equal(plain)
    alone = data.augmented(0, 0).batch([2])["pixel_values"][0]
    assert alone.equal(first[2])  # whatever batch it is in


def test_many_images_lie_in_a_file(folder, monkeypatch):
    monkeypatch.setattr("peftbench.tasks.image.encoded.IN_MEMORY_BYTES", 100)
    data = load_task(config(folder)).encode_split("train", SITES)
    assert isinstance(data.pixels, np.memmap) and data.batch([0])["pixel_values"].shape == (1, 3, 16, 16)


def test_the_checksum_is_of_the_images_and_their_classes(folder):
    before = load_task(config(folder)).checksum
    assert load_task(config(folder)).checksum == before
    write(folder / "train" / "cat" / "1.png", 77)
    assert load_task(config(folder)).checksum != before


def test_an_image_in_two_splits_is_told(folder):
    (folder / "val" / "cat" / "c.png").write_bytes((folder / "train" / "cat" / "0.png").read_bytes())
    task = load_task(config(folder))
    assert task.warnings({}) == ["1 of 3 validation images also occur in the training data (leakage)"]


def test_sixteen_bits_keep_their_contrast(folder):
    ramp = np.linspace(0, 65535, 16 * 16).reshape(16, 16).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "train" / "cat" / "0.png")
    pixels = np.asarray(load_task(config(folder)).splits["train"].open(0))
    assert pixels.min() == 0 and pixels.max() == 255 and np.abs(pixels[..., 0] - ramp / 257).max() < 1.5


def test_digits_are_always_there():
    pytest.importorskip("sklearn")
    task = load_task(fill_task({"name": "digits", "kind": "images", "source": "sklearn", "metrics": ["accuracy"]}))
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 1096, "validation": 236, "test": 465}
    assert task.labels == tuple("0123456789")


def test_an_archive_is_unpacked_once(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_DATA", str(data_dir))
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    wanted = config(archive="hymenoptera-160px.tar.gz", labels=["ants", "bees"])
    for _ in range(2):
        task = load_task(wanted)
        assert [len(split) for split in task.splits.values()] == [245, 153]
    assert len(list((tmp_path / "archives").iterdir())) == 1
    next((tmp_path / "archives").rglob("*.jpg")).unlink()
    assert [len(split) for split in load_task(wanted).splits.values()] == [245, 153], "unpacked again"
    assert len(list((tmp_path / "archives").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_one_line(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_DATA", str(data_dir))
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        UserError, match=r"cannot write .*file.*Not a directory; free space there or set PEFTBENCH_CACHE"
    ):
        load_task(config(archive="hymenoptera-160px.tar.gz", labels=["ants", "bees"]))


# ---- what is wrong ---------------------------------------------------------------------------------------


def truncated(folder):
    path = folder / "train" / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:200])


def no_image(folder):
    (folder / "train" / "dog" / "0.png").write_text("not an image")


def empty_class(folder):
    (folder / "train" / "horse").mkdir()


def class_of_two_lines(folder):
    write(folder / "train" / "a\nb" / "0.png")


def class_of_no_characters(folder):
    (folder / "train" / "cat").rename(folder / "train" / os.fsdecode(b"c\xff"))


def no_classes(folder):
    for path in (folder / "train").glob("*/*"):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def of_no_class(folder):
    write(folder / "train" / "a.png")


def one_class(folder):
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()
    (folder / "train" / "dog").rmdir()


def unknown_class(folder):
    write(folder / "val" / "rabbit" / "0.png")


def no_validation(folder):
    (folder / "val").rename(folder / "other")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, r"dog.0\.png is damaged or cut short"),
        (no_image, r"dog.0\.png is no image"),
        (empty_class, r"horse holds no image"),
        (class_of_two_lines, r"a class's name must be of UTF-8 characters, in one line"),
        (class_of_no_characters, r"a class's name must be of UTF-8 characters, in one line"),
        (no_classes, r"train holds no class folders"),
        (of_no_class, r"train: 1 image lies beside its class folders \(a\.png\)"),
        (one_class, r"all training images are of class cat"),
        (unknown_class, r"no class 'rabbit', of which .*0\.png is"),
        (no_validation, r"no folder validation or val or valid or dev in"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mistake_is_one_line_with_the_file_s_name(folder, damage, said):
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        load_task(config(folder)).encode_split("train", SITES)
    assert "\n" not in str(caught.value)


def test_a_huge_image_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr("peftbench.tasks.image.files.LARGEST_SIDE", 23)
    with pytest.raises(UserError, match=r"0\.png is 24 × 20 pixels: at most 23"):
        load_task(config(folder)).encode_split("train", SITES)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"augment": "spin"}, "task.augment=spin is unknown"),
        ({"image_size": 0}, "task.image_size=0 must be 1 or more"),
        ({"image_size": [1, 2, 3]}, "must be one side of a square, or"),
        ({"metrics": ["pearson"]}, "its labels are classes, which pearson cannot judge"),
        ({"kind": "image"}, "task.kind=image: there is no such kind. Did you mean images"),
        ({"text": "a"}, "task has no key 'text'"),
    ],
)
def test_a_setting_that_makes_no_sense(folder, fields, said):
    with pytest.raises(UserError, match=said):
        load_task(config(folder, **fields))


def test_no_images_anywhere(monkeypatch):
    monkeypatch.delenv("PEFTBENCH_DATA", raising=False)
    with pytest.raises(UserError, match="task pets needs its images: task.dir=FOLDER"):
        load_task(config())
    with pytest.raises(UserError, match="no such task folder"):
        load_task(config(Path(os.sep, "nowhere")))

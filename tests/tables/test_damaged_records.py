"""A damaged or odd run costs its own run, with the reason in the notes: never the table, never a traceback."""

import copy
import csv
import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from records import finished_fields

from peftbench.runs.digests import digests
from peftbench.runs.identity import run_id
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.tables.build import build_table
from peftbench.tables.collect import PlannedRun, collect
from peftbench.tables.columns import MEASURED, PER_RUN
from peftbench.tables.export.formats import TEXTS
from peftbench.tables.spec import read_spec

EXAMPLES = 41
ROWS = {"full": "full", "LoRA": "lora"}
SPEC = {
    "title": "Made",
    "baseline": "full",
    "columns": ["accuracy", "difference", *PER_RUN, *MEASURED],
    "rows": [{"label": label, "overrides": [f"method={method}"]} for label, method in ROWS.items()],
}
RATIO = {"ratio": 1.2, "ratio_low": 1.1, "ratio_high": 1.3}
SECTIONS = {
    "latency": {"settings": [{"batch": 1, "length": 32, **RATIO}], "device": "cpu", "threads": 1},
    "training_step": {**RATIO, "ms": 10.0, "full_ms": 12.0, "batch_size": 32},
    "switching": {"ms": {"median": 1.0, "least": 0.5, "most": 2.0}},
}
ODD_VALUES = [None, "x", [], float("nan"), 10**400]


def finish(folder, config, seed):
    labels = np.arange(EXAMPLES) % 2
    answers = np.where(np.arange(EXAMPLES) < 5 + seed, 1 - labels, labels)
    record = Record.create(folder, config, [])
    record.write_predictions({"validation": Predictions(labels, answers, np.eye(2)[answers])}, ["no", "yes"])
    record.history_path.write_text('{"epoch": 1, "step": 2, "validation": {"accuracy": 0.5}}\n')
    (folder / "train.log").write_text("trained\n")
    scores = {"accuracy": float(np.mean(answers == labels)), "f1": 0.8, "loss": 0.4}
    sizes = {"train": 320, "validation": EXAMPLES}
    record.finish(**finished_fields({"validation": scores}, sizes, **copy.deepcopy(SECTIONS)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What four finished runs are asked by: two rows of two seeds."""
    folder, asked = tmp_path_factory.mktemp("whole"), []
    for label, method in ROWS.items():
        for seed in (0, 1):
            task = {"name": "mrpc", "metrics": ["accuracy", "f1"]}
            config = {"method": {"name": method}, "task": task, "model": {"name": "minilm"}, "trainer": {}}
            config |= {"seed": seed, "experiment": "lab"}
            asked.append(PlannedRun(label, seed, [f"method={method}", f"seed={seed}"], config, folder / run_id(config)))
            finish(asked[-1].folder, config, seed)
    return asked


@pytest.fixture
def runs(whole, tmp_path):
    """A copy of them to damage; the last, LoRA's seed 1, is the one to go for."""
    shutil.copytree(whole[0].folder.parent, tmp_path / "runs")
    return [replace(run, folder=tmp_path / "runs" / run.folder.name) for run in whole]


def build(runs):
    return build_table(read_spec("made", SPEC, 2), collect(runs, use_stale=True), "peftbench table made")


def assert_costs_only_itself(runs, needed=True):
    """Check that the table stands whatever became of the last run; `needed`: it cannot be used as it is."""
    table = build(runs)
    assert all(render(table) for _, render in TEXTS.values())
    full, lora = table.rows
    assert full.cells["accuracy"].n == 2 and lora.cells["accuracy"].n == (1 if needed else 2)
    damaged = lora.runs[1]
    assert damaged.used is not needed
    if needed:
        assert damaged.reason and any("LoRA" in note and damaged.reason in note for note in table.notes)


def seal(folder, content):
    """Write a result as if it had been written so, and the digests of what else is there now."""
    content = {key: value for key, value in content.items() if key != "digest"}
    if isinstance(content.get("files"), dict):
        content["files"] = digests(folder, content["files"])
    text = json.dumps(content, indent=2, ensure_ascii=False).encode().removesuffix(b"\n}")
    (folder / "result.json").write_bytes(text + b',\n  "digest": "%s"\n}\n' % hashlib.sha256(text).hexdigest().encode())


def make_version_1(folder):
    """Rewrite a run as peftbench 0.1 wrote them: no digests, so that damage shows in what is read alone."""
    new = json.loads((folder / "result.json").read_text())
    environment, (evaluation,) = new.pop("environment"), new.pop("evaluations")
    old = {key: value for key, value in new.items() if key not in ("digest", "files", "origin", *SECTIONS)}
    old |= {"schema": 1, "metrics": {"validation": evaluation["metrics"]}, "data": "same", "code": "0ld"}
    old |= {"dtype": "float32", **SECTIONS, **{key: environment[key] for key in ("versions", "device", "threads")}}
    (folder / "result.json").write_text(json.dumps(old))
    path = folder / "predictions.csv"
    path.write_text(path.read_text().replace("id,", "index,").replace("no", "0").replace("yes", "1"))
    return old


def places(value, path=()):
    """Yield the path of every field of a result, at any depth."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


def test_whole_runs_are_used(runs):
    table = build(runs)
    assert [row.cells["accuracy"].n for row in table.rows] == [2, 2] and not table.notes
    assert set(PER_RUN) | set(MEASURED) - {"latency_merged"} <= set(table.rows[1].cells)


@pytest.mark.long
@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda odd: str(odd)[:5])
def test_any_field_of_the_result_may_be_odd(runs, odd):
    folder = runs[-1].folder
    whole = json.loads((folder / "result.json").read_text())
    for *parents, last in places(whole):
        content = copy.deepcopy(whole)
        place = content
        for key in parents:
            place = place[key]
        place[last] = odd
        seal(folder, content)
        table = build(runs)
        assert table.rows[0].cells["accuracy"].n == 2, (parents, last)
        run = table.rows[1].runs[1]
        assert run.used or any(run.reason and run.reason in note for note in table.notes), (parents, last)


def test_any_field_of_the_result_may_be_missing(runs):
    folder = runs[-1].folder
    whole = json.loads((folder / "result.json").read_text())
    for *parents, last in places(whole):
        content = copy.deepcopy(whole)
        place = content
        for key in parents:
            place = place[key]
        del place[last]
        seal(folder, content)
        assert build(runs).rows[0].cells["accuracy"].n == 2, (parents, last)


@pytest.mark.parametrize("odd", ODD_VALUES, ids=lambda odd: str(odd)[:5])
def test_any_field_of_an_old_result_may_be_odd(runs, odd):
    old = [make_version_1(run.folder) for run in runs][-1]
    assert [row.cells["accuracy"].n for row in build(runs).rows] == [2, 2]
    for key in old:
        (runs[-1].folder / "result.json").write_text(json.dumps({**old, key: odd}))
        table = build(runs)
        assert table.rows[0].cells["accuracy"].n == 2, key
        run = table.rows[1].runs[1]
        assert run.used or any(run.reason and run.reason in note for note in table.notes), key


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "predictions.csv", "history.jsonl"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "binary", "folder"])
def test_any_file_may_be_damaged(runs, name, damage):
    path = runs[-1].folder / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"flip": flipped, "cut": content[:middle], "empty": b"", "binary": b"\xff\x00\xfe"}[damage])
    assert_costs_only_itself(runs)


@pytest.mark.parametrize("name", ["config.yaml", "predictions.csv", "history.jsonl"])
def test_any_file_may_be_gone(runs, name):
    (runs[-1].folder / name).unlink()
    assert_costs_only_itself(runs)


def test_what_no_figure_is_made_from_may_be_gone(runs):
    (runs[-1].folder / "train.log").unlink()
    assert_costs_only_itself(runs, needed=False)


def change_rows(folder, change):
    """Rewrite the rows of predictions.csv behind its header, as if they had been written so."""
    path = folder / "predictions.csv"
    header, *rows = csv.reader(path.open(newline=""))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *change(rows)])
    seal(folder, json.loads((folder / "result.json").read_text()))


def with_cell(rows, column, text):
    return [[*rows[0][:column], text, *rows[0][column + 1 :]], *rows[1:]]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: [],
        lambda rows: [["test", *row[1:]] for row in rows],
        lambda rows: with_cell(rows, 3, "maybe"),
        lambda rows: with_cell(rows, 3, ""),
        lambda rows: with_cell(rows, 2, ""),
        lambda rows: with_cell(rows, 3, "7"),
        lambda rows: with_cell(rows, 2, "-1"),
        lambda rows: with_cell(rows, 4, "x"),
        lambda rows: with_cell(rows, 4, "nan"),
        lambda rows: with_cell(rows, 2, "yes"),
    ],
    ids=[
        "short",
        "none",
        "split",
        "class",
        "no answer",
        "no label",
        "range",
        "negative",
        "probability",
        "nan",
        "other label",
    ],
)
def test_predictions_may_be_odd(runs, change):
    change_rows(runs[-1].folder, change)
    assert_costs_only_itself(runs)


def test_other_examples_than_the_sister_runs(runs):
    folder = runs[-1].folder
    change_rows(folder, lambda rows: rows[:-1])
    content = json.loads((folder / "result.json").read_text())
    content["evaluations"][0]["examples"] = EXAMPLES - 1
    seal(folder, content)
    assert_costs_only_itself(runs)
    assert "it has 40 examples of validation, the other runs 41" in build(runs).rows[1].runs[1].reason


@pytest.mark.parametrize(
    "row", ['{"validation": 3}', '{"epoch": "x", "validation": {}}', '{"epoch": 1, "validation": []}']
)
def test_the_training_curve_may_be_odd(runs, row):
    folder = runs[-1].folder
    (folder / "history.jsonl").write_text(row + "\n")
    seal(folder, json.loads((folder / "result.json").read_text()))
    assert_costs_only_itself(runs)


def test_a_damaged_neighbour_says_nothing_of_missing_runs(runs):
    """A run that is not of the table, in the same folder, is looked at where one of the table's is missing."""
    neighbour = runs[-1].folder.with_name("lora-mrpc-minilm-s1-0000")
    runs[-1].folder.rename(neighbour)
    (neighbour / "config.yaml").write_text("method: [")
    table = build(runs)
    assert table.rows[1].runs[1].status == "missing" and table.rows[0].cells["accuracy"].n == 2

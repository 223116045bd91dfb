"""`peftbench sweep` and `peftbench table` with `task=a,b`: a column a task, and rows compared by their mean."""

import json
import shutil

import pytest

from peftbench.runs.find import find_runs

pytestmark = pytest.mark.usefixtures("shared_process")
TASK = """
name: {name}
source: local
splits: {{train: {train}, validation: {validation}, test: null}}
text: [text]
label: label
labels: []
metrics: [accuracy, f1]
"""


@pytest.fixture
def two_tasks(sweep, tiny_data_dir):
    """The tiny table on two tasks of one and other names, `one` with 21 validation rows and `other` with 9."""
    folder = sweep.spec.parent.parent / "task"
    folder.mkdir()
    for name, validation in (("one", "validation"), ("other", "test")):
        files = {split: tiny_data_dir / "opinions" / f"{split}.csv" for split in ("train", validation)}
        text = TASK.format(name=name, train=files["train"], validation=files[validation])
        (folder / f"{name}.yaml").write_text(text)
    spec = sweep.spec.read_text()
    start, end = spec.index("task=text_file"), spec.index("trainer.epochs")
    sweep.spec.write_text(f"{spec[:start]}task.max_length=32, {spec[end:]}")
    return sweep


def lose(outputs, **facts):
    for run in find_runs(outputs):
        if facts.items() <= run.facts.items():
            shutil.rmtree(run.record.folder)


@pytest.mark.long
def test_each_task_has_a_column_and_the_mean_is_of_what_all_have(two_tasks, capsys):
    columns = "table.columns=[share,accuracy,difference,latency]"
    assert two_tasks("task=one,other", columns) == 0
    shown = capsys.readouterr().out
    assert "task 1 of 2: one" in shown and "task 2 of 2: other" in shown
    folder = two_tasks.outputs / "tiny" / "tables" / "tiny"
    table = json.loads((folder / "table.json").read_text())
    assert table["task"] == "one, other" and table["examples"] == 30 and table["primary"] == "mean"
    keys = ["share", "latency", "mean", "p_best", "difference", "task.one", "task.other"]
    assert [column["key"] for column in table["columns"]] == keys
    alone = {name: json.loads((folder / name / "table.json").read_text()) for name in ("one", "other")}
    for number, row in enumerate(table["rows"]):
        scores = {name: of_task["rows"][number]["cells"]["accuracy"] for name, of_task in alone.items()}
        for name, cell in scores.items():
            assert row["cells"][f"task.{name}"]["value"] == pytest.approx(cell["value"])
            assert row["cells"][f"task.{name}"]["sd"] == pytest.approx(cell["sd"])
        mean = sum(cell["value"] for cell in scores.values()) / 2
        assert row["cells"]["mean"]["value"] == pytest.approx(mean)
        assert row["cells"]["latency"] == alone["one"]["rows"][number]["cells"]["latency"]
        assert len(row["runs"]) == 4 and all(run["used"] for run in row["runs"])
        assert row["baseline"] or row["against"]["value"] == pytest.approx(
            mean - table["rows"][0]["cells"]["mean"]["value"]
        )
    assert len(table["pairs"]) == 3 and table["conclusion"].startswith("Highest mean accuracy")
    page = (folder / "table.html").read_text()
    assert "mean accuracy, %" in page and "task one, other" in page
    assert {path.name for path in folder.iterdir() if path.suffix == ".svg"} >= {"score-by-share.svg"}

    lose(two_tasks.outputs, task="other", method="lora")
    assert two_tasks("task=one,other", columns, command="table") == 0
    shown = capsys.readouterr().out
    assert "other: 2 of 6 runs are missing: peftbench sweep table=tiny" in shown and "task=one,other" in shown
    assert two_tasks("task=one,other", columns) == 0
    assert "10 of" not in capsys.readouterr().out
    again = json.loads((folder / "table.json").read_text())
    assert [row["cells"]["mean"] for row in again["rows"]] == [row["cells"]["mean"] for row in table["rows"]]

    lose(two_tasks.outputs, task="other", seed=1)
    assert two_tasks("task=one,other", columns, command="table") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "head: its mean is of 1 seed, those that all tasks have" in shown
    assert "other: 3 of 6 runs are missing" in shown

    lose(two_tasks.outputs, task="other")
    assert two_tasks("task=one,other", columns, "--format", "json", command="table") == 0
    table = json.loads(capsys.readouterr().out)
    assert all("task.one" in row["cells"] and "mean" not in row["cells"] for row in table["rows"])
    assert table["pairs"] == [] and table["conclusion"] == ""


@pytest.mark.parametrize(
    "argv, said",
    [
        (["task=one,one"], "task=one,one names 'one' twice"),
        (["task=[one,other]"], "write several tasks as task=a,b, without brackets"),
        (["task=one,"], "task=one, names an empty task"),
        (["task=one,twice"], "task=twice: there is no such task"),
        (["task=one,other", "until=decided"], "until=decided looks at the scores of one task"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(two_tasks, argv, said, capsys):
    assert two_tasks(*argv) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("task=twice") <= 1 and error.count("\n") <= 3 and "Traceback" not in error
    assert not two_tasks.outputs.exists()


def test_a_mistake_of_one_task_names_it_and_one_of_all_names_none(two_tasks, capsys):
    folder = two_tasks.spec.parent.parent / "task"
    (folder / "odd.yaml").write_text(
        (folder / "one.yaml").read_text().replace("name: one", "name: odd").replace("accuracy, f1", "")
    )
    assert two_tasks("task=one,odd") == 2
    error = capsys.readouterr().err
    assert "task=odd: row 'head': " in error and "task.metrics is empty" in error
    assert two_tasks("task=one,other", "trainer.lr=0") == 2
    error = capsys.readouterr().err
    assert "row 'head': trainer.lr=0" in error and "task=" not in error
    assert not two_tasks.outputs.exists()


def test_a_plan_is_of_one_task(two_tasks, capsys):
    assert two_tasks("task=one,other", command="plan") == 2
    assert "only `peftbench sweep table=…` and `peftbench table` take several tasks" in capsys.readouterr().err


def test_the_spread_is_of_one_task(two_tasks, capsys):
    assert two_tasks("task=one,other", "--explain-spread", command="table") == 2
    assert two_tasks("task=one,other", "explain_spread=true") == 2
    assert capsys.readouterr().err.count("explain_spread=true looks at the scores of one task") == 2


def test_rows_of_a_task_of_their_own_and_two_tasks_of_one_name_are_refused(two_tasks, capsys):
    spec = two_tasks.spec.read_text()
    two_tasks.spec.write_text(spec.replace("[method=lora,", "[method=lora, task=one,"))
    assert two_tasks("task=one,other") == 2
    assert "row 'LoRA' is of task one whatever task=… says" in capsys.readouterr().err
    two_tasks.spec.write_text(spec)
    tasks = two_tasks.spec.parent.parent / "task"
    shutil.copy(tasks / "one.yaml", tasks / "copied.yaml")
    for command in ("sweep", "table"):
        assert two_tasks("task=one,copied", command=command) == 2
        assert "two of the tasks are called one" in capsys.readouterr().err
    assert not two_tasks.outputs.exists()


@pytest.mark.long
def test_tasks_may_be_called_as_columns_are_and_on_error_stop_ends_all(two_tasks, capsys):
    tasks = two_tasks.spec.parent.parent / "task"
    for name in ("mean", "share"):
        (tasks / f"{name}.yaml").write_text((tasks / "one.yaml").read_text().replace("name: one", f"name: {name}"))
    columns = "table.columns=[share,accuracy]"
    assert two_tasks("task=mean,share", "seeds=1", columns) == 0
    capsys.readouterr()
    assert two_tasks("task=mean,share", "seeds=1", columns, "--format", "json", command="table") == 0
    table = json.loads(capsys.readouterr().out)
    for row in table["rows"]:
        assert (
            row["cells"]["share"]["value"] < 50 < row["cells"]["task.share"]["value"] == row["cells"]["mean"]["value"]
        )
    first, last = table["rows"][0]["cells"], table["rows"][-1]["cells"]
    difference = last["difference"]
    assert difference["value"] == pytest.approx(last["mean"]["value"] - first["mean"]["value"])
    assert difference["low"] is None, "one seed has no interval"
    wrong = ["trainer.lr=1e30", "trainer.epochs=3"]  # diverges
    assert two_tasks("task=one,other", "seeds=1", columns, "on_error=stop", *wrong) == 1
    assert "task 2 of 2" not in capsys.readouterr().out

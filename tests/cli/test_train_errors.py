"""What a user does wrong gets one line and exit code 2; a run that fails gets one line, a record and exit code 1."""

import json
from pathlib import Path

import pytest
import torch
from records import age

from peftbench import cli
from peftbench.runs.find import find_runs
from peftbench.runs.record import Record
from peftbench.tasks.classification import Classification


@pytest.fixture
def train(tmp_path, tiny_model_dir, tiny_data_dir, capsys):
    """Run `peftbench train` on the tiny model and data in this process; return exit code and standard error."""

    def run(*overrides: str, word: str = "train") -> tuple[int, str]:
        opinions = tiny_data_dir / "opinions"
        base = {
            "output_dir": tmp_path / "outputs", "model": "local", "model.path": tiny_model_dir, "task": "text_file",
            "task.splits.train": opinions / "train.csv", "task.splits.validation": opinions / "validation.csv",
            "task.max_length": 32, "trainer.epochs": 2, "device": "cpu", "measure.latency": "false",
        }  # fmt: skip
        given = {override.partition("=")[0] for override in overrides}
        if "model" in given or "task" in given:
            base = {k: v for k, v in base.items() if not k.startswith(tuple(given & {"model", "task"}))}
        argv = [f"{key}={value}" for key, value in base.items() if key not in given]
        code = cli.main([word, *argv, *overrides])
        return code, capsys.readouterr().err

    return run


MISTAKES = {
    "group": (["methd=lora"], "Did you mean method"),
    "option": (["method=lorra"], "Did you mean lora"),
    "key": (["method.bottlneck=8"], "Did you mean bottleneck"),
    "type": (["method.bottleneck=many"], "method.bottleneck=many is not of type int"),
    "bottleneck 0": (["method.bottleneck=0"], "method.bottleneck=0 must be 1 or more"),
    "bottleneck below 0": (["method.bottleneck=-3"], "method.bottleneck=-3 must be 1 or more"),
    "layers outside": (["method=pfeiffer", "method.layers=1-2"], "method.layers=1-2 is outside of the model: .* 0-1"),
    "two sizes": (["method=mam", "method.bottleneck=4", "method.reduction_factor=8"], "set one of them"),
    "phm": (["method=compacter", "method.bottleneck=6"], "method.phm_dim=4 must divide the bottleneck, 6"),
    "rank 0": (["method=lora", "method.rank=0"], "method.rank=0 must be 1 or more"),
    "rank": (["method=lora", "method.rank=33"], "larger than the dimension 32 of attention.query"),
    "rank of ffn": (
        ["method=lora", "method.rank=40", "method.targets=[up]"],
        "larger than the dimension 32 of ffn.up",
    ),
    "target": (["method=lora", "method.targets=[quary]"], "Did you mean query.*attention.output, ffn.up, ffn.down"),
    "position": (["method.position=ff"], "choose from attention, ffn, both, every, output"),
    "activation": (["method.activation=gelo"], "choose from gelu, relu"),
    "long prompt": (["method=prompt", "method.length=50"], "do not fit local, which takes 66.*method.length"),
    "endless prompt": (["method=prompt", "method.length=500"], "leaves no room for text: the model takes 66"),
    "long prefix": (["method=prefix", "method.length=40"], "do not fit local.*lower method.length"),
    "long rows": (["task.max_length=100"], "task.max_length=100 tokens do not fit local"),
    "no such model folder": (["model.path=nowhere/at_all"], "nowhere/at_all"),
    "no such file": (["task.splits.train=nowhere.csv"], "nowhere.csv"),
    "no column": (["task.text=[txt]"], "txt.*text"),
    "label outside the set": (["task.labels=[bad,worse]"], "good.*bad, worse"),
    "a class twice": (["task.labels=[bad,good,bad]"], "task.labels names 'bad' twice"),
    "two files for a split": (["task.splits.train=[a.csv,b.csv]"], "task.splits.train=.* must be one file; join"),
    "no batch to measure": (["measure.batches=[]"], "measure.batches is empty"),
    "metric": (["task.metrics=[acuracy]"], "accuracy"),
    "device": (["device=gpu"], "choose auto, cpu, cuda"),
    "schedule": (["trainer.schedule=linnear"], "choose from linear, cosine, constant"),
    "batch size": (["trainer.batch_size=0"], "trainer.batch_size=0 must be 1 or more"),
    "several values without -m": (["seed=0,1"], "-m"),
    "unreadable override": (["method.bottleneck"], "method.bottleneck"),
    "missing value": (["model=local", "model.path=???"], "model.path"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(train, name, tmp_path):
    import re

    overrides, expected = MISTAKES[name]
    code, error = train(*overrides)
    assert code == 2, error
    lines = error.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("peftbench: "), error
    assert re.search(expected, lines[0]), error
    assert not find_runs(tmp_path / "outputs"), "a mistake leaves no record"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_one(train):
    code, error = train("device=cuda")
    assert code == 2 and "no CUDA device" in error


def test_no_such_command():
    assert cli.main(["trian"]) == 2


def test_an_output_folder_that_cannot_be_written(train, tmp_path):
    (tmp_path / "file").write_text("")
    code, error = train(f"output_dir={tmp_path / 'file'}")
    assert code == 2 and len(error.strip().splitlines()) == 1 and "output_dir" in error


def _only_record(folder: Path) -> dict:
    (result,) = folder.rglob("result.json")
    return json.loads(result.read_text())


def test_a_loss_that_is_not_a_number(train, tmp_path):
    code, error = train("method=full", "trainer.lr=1e38", "trainer.clip=null", "trainer.batch_size=4")
    record = _only_record(tmp_path)
    assert code == 1 and record["status"] == "failed"
    assert "at step" in record["error"] and record["error"] in error
    assert len(error.strip().splitlines()) == 1


def test_out_of_memory_is_recorded_with_a_hint(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "loss", lambda *_: torch.empty(2**60))
    code, error = train()
    record = _only_record(tmp_path)
    assert code == 1 and record["status"] == "oom"
    assert "trainer.batch_size" in record["error"] and len(error.strip().splitlines()) == 1


def test_an_unforeseen_error_leaves_its_traceback_in_the_log(train, tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Classification, "loss", broken)
    code, error = train()
    record = _only_record(tmp_path)
    assert code == 1 and record["status"] == "failed" and "ZeroDivisionError: oh" in record["error"]
    assert len(error.strip().splitlines()) == 1
    (log,) = tmp_path.rglob("train.log")
    assert "Traceback" in log.read_text() and str(log) in record["error"]


def test_a_damaged_checkpoint_is_named(train, tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "loss", lambda *_: torch.empty(2**60))
    train()
    monkeypatch.undo()
    (result,) = tmp_path.rglob("result.json")
    checkpoint = result.with_name("checkpoint.pt")
    checkpoint.write_bytes(b"half of it")
    code, error = train()
    assert code == 2 and "checkpoint" in error and "force=true" in error
    code, _ = train("force=true")
    assert code == 0 and _only_record(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("code", ["this", "other"])
def test_a_checkpoint_of_other_code_is_not_continued(train, tmp_path, monkeypatch, code):
    from peftbench.runs.observers import RecordHistory, Terminal

    tell = RecordHistory.on_epoch
    monkeypatch.setattr(RecordHistory, "on_epoch", lambda self, row: tell(self, row) if row["epoch"] < 2 else 1 / 0)
    assert train()[0] == 1
    monkeypatch.undo()
    (result,) = tmp_path.rglob("result.json")
    record = Record(result.parent)
    assert record.checkpoint_path.exists() and record.read().origin.code
    if code == "other":
        age(record)
    continued = []
    monkeypatch.setattr(Terminal, "on_resume", lambda self, step: continued.append(step))
    assert train()[0] == 0
    assert bool(continued) == (code == "this")
    assert record.read().origin.code != "0ld" and [row["epoch"] for row in record.history() if "validation" in row] == [
        1,
        2,
    ]


def test_in_a_multirun_the_others_go_on(train, tmp_path):
    code, error = train("-m", "method=lora", "method.rank=2,99", "method.targets=[query]")
    assert code == 2 and "method.rank=99" in error
    assert [run.status for run in find_runs(tmp_path / "outputs")] == ["finished"]


def test_a_failed_run_of_a_multirun_gives_exit_code_1(train, tmp_path):
    code, _ = train("-m", "method=full", "trainer.lr=1e38,1e-4", "trainer.clip=null", "trainer.batch_size=4")
    assert code == 1
    assert sorted(run.status for run in find_runs(tmp_path / "outputs")) == ["failed", "finished"]


def test_nothing_but_the_record_is_written(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train()[0] == 0
    assert [file.name for file in tmp_path.iterdir()] == ["outputs"]
    (result,) = tmp_path.rglob("result.json")
    assert sorted(file.name for file in result.parent.iterdir()) == [
        "adapter", "config.yaml", "history.jsonl", "predictions.csv", "result.json",
    ]  # fmt: skip


def test_other_data_under_the_same_name_are_noticed(train, tmp_path, tiny_data_dir):
    """Two folders of one task have one run id: the second is not taken for the first."""
    pairs = ["task=mrpc", "task.max_length=32", "trainer.epochs=1"]
    assert train(*pairs, f"task.dir={tiny_data_dir / 'pairs'}")[0] == 0
    copy, other = tmp_path / "copy", tmp_path / "other"
    for folder, rows in ((copy, None), (other, -1)):
        folder.mkdir()
        for file in (tiny_data_dir / "pairs").iterdir():
            lines = file.read_text().splitlines()[:rows]
            (folder / file.name).write_text("\n".join(lines) + "\n")
    assert train(*pairs, f"task.dir={copy}")[0] == 0
    code, error = train(*pairs, f"task.dir={other}")
    assert code == 2 and "other data" in error and "force=true" in error
    assert train(*pairs, f"task.dir={other}", "force=true")[0] == 0


def test_other_data_in_the_folder_of_all_data_are_noticed(train, tmp_path, tiny_data_dir, monkeypatch):
    pairs = ["task=mrpc", "task.max_length=32", "trainer.epochs=1", "experiment=shared"]
    for name, rows in (("one", None), ("other", -1)):
        folder = tmp_path / name / "glue" / "mrpc"
        folder.mkdir(parents=True)
        for file in (tiny_data_dir / "pairs").iterdir():
            (folder / file.name).write_text("\n".join(file.read_text().splitlines()[:rows]) + "\n")
    monkeypatch.setenv("PEFTBENCH_DATA", str(tmp_path / "one"))
    assert train(*pairs)[0] == 0 and train(*pairs)[0] == 0
    monkeypatch.setenv("PEFTBENCH_DATA", str(tmp_path / "other"))
    code, error = train(*pairs)
    assert code == 2 and "other data" in error


def test_classes_of_other_names_are_other_data(train, tmp_path):
    file = tmp_path / "named.csv"
    rows = [f"the film was {'good' if i % 2 else 'bad'} {i}," for i in range(20)]
    line = ["task=text_file", f"task.splits.train={file}", "task.splits.validation=0.3"]
    line += ["trainer.epochs=1", "task.max_length=32"]
    for names in (("no", "yes"), ("left", "right")):
        file.write_text("text,label\n" + "".join(f"{row}{names[i % 2]}\n" for i, row in enumerate(rows)))
        code, error = train(*line)
        assert code == (0 if names[0] == "no" else 2), error
    assert "was trained on other data" in error

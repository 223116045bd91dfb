"""`peftbench predict --runs`: a file in which a column says which run answers each row."""

import csv
import json
from pathlib import Path

import pytest

import peftbench
from peftbench.commands import predict
from peftbench.errors import UserError
from peftbench.runs.record import Record

ROWS = [
    {"id": "1", "task": "opinions", "text": "the film was good", "sentence1": "", "sentence2": ""},
    {"id": "2", "task": "pairs", "text": "", "sentence1": "a film", "sentence2": "a dull plot"},
    {"id": "3", "task": "scores", "text": "", "sentence1": "a film", "sentence2": "a dull plot"},
    {"id": "4", "task": "opinions", "text": "", "sentence1": "", "sentence2": ""},
    {"id": "5", "task": "opinions", "text": "a dull, bad plot", "sentence1": "", "sentence2": ""},
]


@pytest.fixture
def runs(tiny_run: Record, tiny_pair_run: Record, tiny_score_run: Record) -> list[str]:
    named = {"opinions": tiny_run, "pairs": tiny_pair_run, "scores": tiny_score_run}
    return [f"{name}={record.folder}" for name, record in named.items()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def printed(capsys: pytest.CaptureFixture, *argv: object) -> list[dict]:
    assert predict.main([*map(str, argv), "--device", "cpu", "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_row_is_answered_by_its_run(
    runs: list[str], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    answers = printed(capsys, "--runs", *runs, file)
    assert [answer["task"] for answer in answers] == [row["task"] for row in ROWS]
    for row, answer in zip(ROWS, answers, strict=True):
        text = row["text"] if row["task"] == "opinions" else (row["sentence1"], row["sentence2"])
        folder = dict(run.split("=", 1) for run in runs)[row["task"]]
        expected = peftbench.load(folder, device="cpu").predict([text])[0]
        if isinstance(expected.prediction, float):
            assert answer["prediction"] == pytest.approx(expected.prediction, abs=1e-5)
        else:
            assert answer["prediction"] == expected.prediction
            assert answer.get("probabilities", {}) == pytest.approx(expected.probabilities, abs=1e-5)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert printed(capsys, "--runs", *runs, "--file", tmp_path / "rows.jsonl") == answers
    assert printed(capsys, file, "--runs", *runs) == answers
    assert printed(capsys, "--runs", *runs, file.rename(tmp_path / "rows of a=1.csv")) == answers


def test_output_keeps_every_row_and_column(
    runs: list[str], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "answers.csv"
    assert predict.main(["--runs", *runs, str(file), "--device", "cpu", "--output", str(output)]) == 0
    assert "no text and so no prediction: line 5" in capsys.readouterr().err
    with output.open(newline="") as opened:
        written = list(csv.DictReader(opened))
    assert [{key: row[key] for key in ROWS[0]} for row in written] == ROWS
    assert list(written[0]) == [*ROWS[0], "prediction", "probability"]
    assert float(written[0]["probability"]) >= 0.5
    assert (written[2]["probability"], written[3]["prediction"]) == ("", "")
    assert predict.main(["--runs", *runs, str(file), "--device", "cpu"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["task", "prediction", "probability", "text", "text 2"]
    assert lines[2][:2] == ["pairs", written[1]["prediction"]]
    assert lines[2][3:] == ["a film", "a dull plot"]


def test_mistakes_are_one_line(runs: list[str], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown, lacking, taskless, text = (tmp_path / name for name in ("unknown.csv", "lacking.csv", "no.csv", "a.txt"))
    listed, of_a_list = tmp_path / "listed.jsonl", tmp_path / "of-a-list.jsonl"
    listed.write_text('{"task": "opinions", "text": ["good"], "sentence1": {}}\n')
    of_a_list.write_text('{"task": ["opinions"], "text": "good"}\n')
    unknown.write_text("task,text\nopinions,good\nopinion,bad\n")
    lacking.write_text("task,text\npairs,good\n")
    taskless.write_text("text\ngood\n")
    endless = tmp_path / "endless.csv"
    endless.write_text(f"task,text\n{'x' * 5000},good\n")
    text.write_text("good\n")
    for argv, said in (
        (["--runs", *runs], "takes one file with a column `task`"),
        (["--runs", *runs, file, "--file", file], "takes one file"),
        (["--runs", file], "--runs names no run, only the file"),
        (["--runs", *runs, file, "--output", file], "this is the file that is read"),
        (["--runs", *runs, file, "--merged"], "--merged: several runs share"),
        (["--runs", runs[0], runs[0], file], "two runs are named opinions"),
        (["--runs", "opinions=nothing", file], "No run 'nothing'"),
        (["--runs", *runs, text], "stand in a .csv, .tsv, .jsonl file"),
        (["--runs", *runs, tmp_path / "none.csv"], "none.csv"),
        (["--runs", *runs, taskless], "no column 'task' among 'text'"),
        (["--runs", *runs, lacking], "line 2: task pairs reads 'sentence1' and 'sentence2', the columns are 'task'"),
        (["--runs", *runs, endless], f"line 2: no task '{'x' * 60}…' is registered. Choose from: opinions, pairs"),
        (["--runs", *runs, unknown], "line 3: no task 'opinion' is registered. Did you mean opinions?"),
        (["--runs", *runs, listed], "line 1, column 'text': [\"good\"] is neither text nor a number"),
        (["--runs", *runs, of_a_list], "line 1, column 'task': [\"opinions\"] is neither text nor a number"),
        ([], "name a run, or several with --runs"),
        ([runs[0].partition("=")[2], "good", "--precision", "fp32"], "--precision is of several runs"),
    ):
        with monkeypatch.context() as patched, pytest.raises(UserError) as raised:
            if unknown not in argv:  # what stands in front of it is answered
                patched.setattr("peftbench.serving.multitask.MultiTask", None)
            predict.main([*map(str, argv), "--device", "cpu"])
        assert said in str(raised.value), argv
        assert "\n" not in str(raised.value)

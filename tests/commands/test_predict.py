import csv
import io
import json
import os
import pty
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import forked
import pytest
import torch

from peftbench.commands import predict
from peftbench.errors import UserError
from peftbench.runs.record import Record

ROOT = Path(predict.__file__).parents[2]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """A function that puts bytes on standard input."""
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def predicted(capsys: pytest.CaptureFixture, record: Record, *argv: object) -> list[dict]:
    assert predict.main([str(record.folder), *map(str, argv), "--device", "cpu", "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_gives_what_training_recorded(tiny_run: Record, tiny_data_dir: Path, capsys: pytest.CaptureFixture) -> None:
    answers = predicted(capsys, tiny_run, "--file", tiny_data_dir / "opinions" / "validation.csv")
    told = tiny_run.predictions(tiny_run.read().evaluation("validation"))
    assert [answer["prediction"] for answer in answers] == [("bad", "good")[index] for index in told.predictions]
    found = [[answer["probabilities"][name] for name in ("bad", "good")] for answer in answers]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(told.probabilities), rtol=1e-5, atol=1e-6)
    assert answers[0]["text"].startswith("good, ")


def test_the_same_text_from_everywhere(
    tiny_run: Record, tmp_path: Path, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture
) -> None:
    texts = ["the film was good", "a dull – and bad – plot"]
    on_line = predicted(capsys, tiny_run, *texts)
    assert [answer["text"] for answer in on_line] == texts
    (tmp_path / "lines.txt").write_text("﻿" + "\n".join(texts) + "\n", encoding="utf-8")
    (tmp_path / "rows.tsv").write_text("id\ttext\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(texts)))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for file in ("lines.txt", "rows.tsv", "rows.jsonl"):
        assert predicted(capsys, tiny_run, "--file", tmp_path / file) == on_line
    for end in ("\n", "\r\n"):
        typed("".join(text + end for text in texts).encode())
        assert predicted(capsys, tiny_run) == on_line
    one_by_one = predicted(capsys, tiny_run, *texts, "--batch-size", 1)
    for answer, other in zip(one_by_one, on_line, strict=True):
        assert answer["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    merged = predicted(capsys, tiny_run, *texts, "--merged")
    assert merged[0]["probabilities"] == pytest.approx(on_line[0]["probabilities"], abs=1e-4)


def test_a_line_without_text_gets_an_empty_answer(
    tiny_run: Record, tmp_path: Path, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "lines.txt").write_text("\ngood film\n \nbad plot\n")
    (tmp_path / "rows.csv").write_text("id,text\n1,\n2,good film\n\n4,bad plot\n")
    typed(b"\ngood film\n\nbad plot\n")
    rows = [{"id": [1], "text": None}, {"id": None, "text": "good film"}, {}, {"text": "bad plot"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for argv in (*(["--file", tmp_path / name] for name in ("lines.txt", "rows.csv", "rows.jsonl")), []):
        argv = [str(tiny_run.folder), *map(str, argv), "--json", "--batch-size", "3"]
        assert predict.main(argv) == 0
        captured = capsys.readouterr()
        answers = [json.loads(line) for line in captured.out.splitlines()]
        assert [answer["text"] for answer in answers] == ["", "good film", "", "bad plot"]
        assert [answer["prediction"] is None for answer in answers] == [True, False, True, False]
        assert "no text and so no prediction: line" in captured.err


def test_output_keeps_every_row_and_column_of_the_input(
    tiny_run: Record, tiny_pair_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,text,prediction\n7,"good,\nfine film",x\n8,,y\n\n9, bad plot ,z\n')
    assert predict.main([str(tiny_run.folder), "--file", str(source), "--output", str(target)]) == 0
    assert capsys.readouterr().out == ""
    rows = list(csv.reader(target.open(newline="")))
    assert rows[0] == ["id", "text", "prediction", "prediction_2", "bad", "good"]
    assert [row[:3] for row in rows[1:]] == [
        ["7", "good,\nfine film", "x"],
        ["8", "", "y"],
        ["", "", ""],
        ["9", " bad plot ", "z"],
    ]
    told = predicted(capsys, tiny_run, "good,\nfine film", "bad plot")
    assert [row[3] for row in rows[1:]] == [told[0]["prediction"], "", "", told[1]["prediction"]]
    assert rows[2][4:] == rows[3][4:] == ["", ""]
    assert [float(cell) for cell in rows[4][4:]] == pytest.approx(list(told[1]["probabilities"].values()), abs=1e-5)

    source.write_bytes(b'id,text\n1,"a good\rfilm"\n2,bad\n')  # as some programs write the end of a line
    assert predict.main([str(tiny_run.folder), "--file", str(source), "--output", str(target)]) == 0
    assert [row[1] for row in csv.reader(target.open(newline=""))] == ["text", "a good\rfilm", "bad"]

    lines = tmp_path / "rows.jsonl"
    lines.write_text('{"n": 1, "sentence1": "a", "sentence2": "b"}\n{"sentence1": "a", "sentence2": null}\n')
    assert predict.main([str(tiny_pair_run.folder), "--file", str(lines), "--output", str(target)]) == 0
    rows = list(csv.reader(target.open(newline="")))
    assert [row[:3] for row in rows] == [["n", "sentence1", "sentence2"], ["1", "a", "b"], ["", "a", ""]]
    assert rows[1][3] and not rows[2][3]


def test_pairs(
    tiny_pair_run: Record, tmp_path: Path, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture
) -> None:
    answers = predicted(capsys, tiny_pair_run, "the film", "a plot", "the film", "was fine")
    assert [answer["text"] for answer in answers] == [["the film", "a plot"], ["the film", "was fine"]]
    typed(b"the film\ta plot\nthe film\twas fine\n")
    assert predicted(capsys, tiny_pair_run) == answers
    (tmp_path / "glue.tsv").write_text("sentence1\tsentence2\nthe film\ta plot\nthe film\twas fine\n")
    assert predicted(capsys, tiny_pair_run, "--file", tmp_path / "glue.tsv") == answers


def test_scores(tiny_score_run: Record, tiny_data_dir: Path, capsys: pytest.CaptureFixture) -> None:
    answers = predicted(capsys, tiny_score_run, "--file", tiny_data_dir / "pairs" / "dev.tsv")
    told = tiny_score_run.predictions(tiny_score_run.read().evaluation("validation"))
    assert [answer["prediction"] for answer in answers] == pytest.approx(told.predictions, abs=1e-5)
    assert "probabilities" not in answers[0]


def test_a_pipe_gets_columns(tiny_run: Record, tiny_score_run: Record, capsys: pytest.CaptureFixture) -> None:
    assert predict.main([str(tiny_run.folder), "good  film", "[bold] plot"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["prediction", "bad", "good", "text"]
    assert [row[3] for row in rows[1:]] == ["good film", "[bold] plot"]
    for row in rows[1:]:
        bad, good = map(float, row[1:3])
        assert bad + good == pytest.approx(1, abs=1e-5)
        assert row[0] == ("bad", "good")[good > bad]
    assert predict.main([str(tiny_score_run.folder), "the film", "a plot"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == "prediction\tsentence1\tsentence2"
    assert float(row.split("\t")[0]) == pytest.approx(float(row.split("\t")[0]))


def test_a_terminal_gets_a_table(
    tiny_run: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    argv = [str(tiny_run.folder), "good film", "[red] plot", "a plot", "--batch-size", "2"]
    assert predict.main(argv) == 0
    header, *rows = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert header.split() == ["prediction", "bad", "good", "text"]
    assert len(rows) == 3
    assert "[red] plot" in rows[1]
    assert rows[0].split()[2] == rows[0].split()[4] == "%"


def test_standard_input_is_answered_batch_by_batch(tiny_run: Record) -> None:
    command = ["-m", "peftbench", "predict", str(tiny_run.folder), "--json", "--batch-size", "2"]
    with forked.Popen(command, stdin=PIPE, stdout=PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in (b"good film", b"bad plot"):
            process.stdin.write(text + b"\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline())["text"] for _ in range(2)]  # its input is still open
        process.stdin.write(b"a plot\n")
        process.stdin.close()
        answers += [json.loads(line)["text"] for line in process.stdout]
    assert answers == ["good film", "bad plot", "a plot"]
    assert process.returncode == 0


def test_nothing_is_left_of_an_output_that_sigterm_stops(tiny_run: Record, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "good film\n" * 100_000)
    target = tmp_path / "made" / "out.csv"
    target.parent.mkdir()
    command = ["-m", "peftbench", "predict", str(tiny_run.folder), "--file", str(source), "--output", str(target)]
    with forked.Popen([*command, "--batch-size", "1"], cwd=ROOT, stderr=PIPE) as process:
        while process.poll() is None and not list(target.parent.iterdir()):
            time.sleep(0.01)
        process.terminate()
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"peftbench: interrupted\n")
    assert process.returncode == 130 and not list(target.parent.iterdir())


def test_answers_before_a_bad_line_are_given(
    tiny_pair_run: Record, typed: Callable[[bytes], None], capsys: pytest.CaptureFixture
) -> None:
    typed(b"the film\ta plot\nalone\n")
    with pytest.raises(UserError, match="standard input, line 2: .*pairs of texts.*tab"):
        predict.main([str(tiny_pair_run.folder), "--json"])
    assert json.loads(capsys.readouterr().out)["text"] == ["the film", "a plot"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input holds no text"),
        (b"\n \n", "standard input holds no text"),
        (b"good\nfi\xe9lm\n", "standard input, line 2, byte 3: not UTF-8 (0xe9)"),
    ],
)
def test_bad_standard_input(data: bytes, message: str, tiny_run: Record, typed: Callable[[bytes], None]) -> None:
    typed(data)
    with pytest.raises(UserError) as caught:
        predict.main([str(tiny_run.folder), "--batch-size", "1"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fixture", "argv", "message"),
    [
        ("tiny_pair_run", ["alone"], "pairs of texts: give two, not 1"),
        ("tiny_pair_run", ["one", "two", "three"], "pairs of texts: give two, not 3"),
        ("tiny_run", ["good", " "], "text 2 is empty"),
        ("tiny_run", ["good", "\udcff"], "text 2 is not UTF-8"),
        ("tiny_run", ["--file", "{tmp}/none.txt"], "no such file: {tmp}/none.txt"),
        ("tiny_run", ["--file", "{tmp}/empty.txt"], "{tmp}/empty.txt: the file is empty"),
        ("tiny_run", ["--file", "{tmp}/latin.txt"], "{tmp}/latin.txt, line 2, byte 3: not UTF-8 (0xe9)"),
        (
            "tiny_run",
            ["--file", "{tmp}/other.csv"],
            "no column 'text' among 'texts'. Did you mean texts? The run's task reads",
        ),
        ("tiny_pair_run", ["--file", "{tmp}/other.csv"], "task reads 'sentence1' and 'sentence2': name the file's col"),
        ("tiny_pair_run", ["--file", "{tmp}/latin.csv"], "{tmp}/latin.csv, line 1"),
        ("tiny_run", ["--file", "{tmp}/list.jsonl"], 'list.jsonl, line 2, column \'text\': ["a", "b"] is neither text'),
        (
            "tiny_run",
            ["--file", "{tmp}/nan.jsonl"],
            "nan.jsonl, line 1, column 'text': NaN is neither text nor a number",
        ),
        ("tiny_run", ["good", "--file", "{tmp}/empty.txt"], "on the line or with --file, not both"),
        ("tiny_pair_run", ["one", "two", "--merged"], "--merged: adapter cannot be merged"),
        ("tiny_run", ["good", "--device", "cuda:99"], "device=cuda:99, but"),
        ("tiny_run", ["good", "--output", "{tmp}/out.xlsx"], "{tmp}/out.xlsx: it writes CSV"),
        ("tiny_run", ["good", "--output", "{tmp}/no/out.csv"], "there is no folder {tmp}/no"),
        ("tiny_run", ["good", "--output", f"{'x' * 300}/out.csv"], f"there is no folder {'x' * 300}"),
        ("tiny_run", ["good", "--output", "{tmp}/out.csv", "--json"], "give one of them"),
        ("tiny_run", ["--file", "{tmp}/out.csv", "--output", "{tmp}/./out.csv"], "this is the file that is read"),
    ],
)
def test_bad_input(fixture: str, argv: list[str], message: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"good\nfi\xe9lm\n")
    (tmp_path / "latin.csv").write_bytes(b"sentence1,sentenc\xe92\n")
    (tmp_path / "other.csv").write_text("texts\ngood\n")
    (tmp_path / "list.jsonl").write_text('{"text": "good"}\n{"text": ["a", "b"]}\n')
    (tmp_path / "nan.jsonl").write_text('{"text": NaN}\n')
    with pytest.raises(UserError) as caught:
        predict.main([str(request.getfixturevalue(fixture).folder), *(word.format(tmp=tmp_path) for word in argv)])
    assert message.format(tmp=tmp_path) in str(caught.value)


def test_someone_typing_is_answered_line_by_line(tiny_run: Record) -> None:
    ours, theirs = pty.openpty()
    command = ["-m", "peftbench", "predict", str(tiny_run.folder), "--json"]
    with forked.Popen(command, stdin=theirs, stdout=PIPE, stderr=PIPE, cwd=ROOT) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stderr is not None
        for text in (b"good film", b"bad plot"):
            os.write(ours, text + b"\n")
            assert json.loads(process.stdout.readline())["text"] == text.decode()
        os.write(ours, b"\x04")  # Ctrl-D
        assert process.stdout.read() == b""
        assert process.stderr.read() == b"reading standard input, one text a line; Ctrl-D ends it\n"
    os.close(ours)
    assert process.returncode == 0

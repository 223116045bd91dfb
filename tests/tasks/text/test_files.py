"""The user's own files, good and bad."""

import json
import os
from pathlib import Path

import pytest
from text_files import text_file

from peftbench.errors import UserError
from peftbench.tasks.text.files import read_columns
from peftbench.tasks.text.read import load_task


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


ROWS = [("plain", "neg"), ('says "no", twice', "pos"), ("two\tcells", "neg")]


def test_the_three_formats_agree(write):
    csv = 'label,text\nneg,plain\npos,"says ""no"", twice"\nneg,"two\tcells"\n'
    jsonl = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)
    tsv = 'text\tid\tlabel\nplain\t1\tneg\nsays "no", twice\t2\tpos\n'
    for name, content, number in (("a.csv", csv, 3), ("a.jsonl", jsonl, 3), ("a.TSV", tsv, 2)):
        path = write(name, content)
        task = load_task(text_file(splits={"train": path, "validation": path}))
        assert task.splits["train"].texts == [(text,) for text, _ in ROWS[:number]]
        assert task.splits["train"].labels == [0, 1, 0][:number]
        assert task.labels == ("neg", "pos") and task.objective.num_outputs == 2
        assert list(task.splits) == ["train", "validation"]


def test_quotes_that_a_tsv_keeps_are_worth_a_word(write):
    rows = read_columns(
        Path(write("a.tsv", 'text\tlabel\n"so ""they"" say"\ta\n"said" and "done"\tb\n')), ["text", "label"]
    )
    assert rows.faults[0].endswith(
        "a.tsv: 1 rows have cells in quotes, which stay as they are in a .tsv: name the file"
        " .csv, whose quotes are read, tabs or not"
    )


def test_spaces_behind_the_delimiter_stand_before_quotes_too(write):
    path = write("a.csv", 'text, label\n"a, b", "x"\nc, y\n')
    assert [cells for _, cells in read_columns(Path(path), ["text", "label"]).items] == [("a, b", "x"), ("c", "y")]


def test_byte_order_mark_and_dos_line_ends(write):
    for name, data in (
        ("a.csv", b"\xef\xbb\xbftext,label\r\none,a\r\n\r\ntwo,b\r\n"),
        ("a.tsv", b"\xef\xbb\xbftext\tlabel\r\none\ta\r\n\r\ntwo\tb\r\n"),
    ):
        path = write(name, data)
        assert load_task(text_file(splits={"train": path, "validation": path})).splits["train"].labels == [
            0,
            1,
        ]


def test_unicode_line_separators_stay_in_their_cell(write):
    path = write("a.tsv", "text\tlabel\none\u2028line\x85here\ta\nb\tb\n")
    assert load_task(text_file(splits={"train": path}), ["train"]).splits["train"].texts[0] == (
        "one\u2028line\x85here",
    )


def test_a_quoted_line_break_keeps_the_line_numbers_right(write):
    path = write("a.csv", 'text,label\n"first\nsecond",a\nthird,b\nfourth,a,extra\n')
    with pytest.raises(UserError, match="line 5: 3 cells where the header has 2"):
        load_task(text_file(splits={"train": path, "validation": path}))


def test_classes_come_from_the_training_file_only(write):
    train = write("train.csv", "text,label\nx,10\ny,2\nz,2\n")
    dev = write("dev.csv", "text,label\nx,10\ny,3\n")
    assert load_task(text_file(splits={"train": train}), ["train"]).labels == ("2", "10")  # by number
    with pytest.raises(UserError, match=r"dev\.csv, line 3, column 'label': label '3' is not one of 2, 10; "):
        load_task(text_file(splits={"train": train, "validation": dev}))


def test_the_test_split_alone_has_the_training_file_s_classes(write):
    train, test = write("train.csv", "text,label\nx,a\ny,b\n"), write("test.csv", "text,label\nx,b\n")
    task = load_task(text_file(splits={"train": train, "validation": None, "test": test}), ["test"])
    assert task.labels == ("a", "b") and list(task.splits) == ["test"] and task.splits["test"].labels == [1]


def test_named_labels_keep_their_order(write):
    path = write("a.jsonl", '{"text": "x", "label": "pos"}\n{"text": "y", "label": "neg"}\n')
    task = load_task(text_file(splits={"train": path, "validation": path}, labels=["pos", "neg"]))
    assert task.splits["train"].labels == [0, 1]


def test_json_numbers_and_booleans_are_labels(write):
    path = write("a.jsonl", '{"text": 7, "label": true}\n{"text": "y", "label": false}\n')
    task = load_task(text_file(splits={"train": path}), ["train"])
    assert task.labels == ("false", "true") and task.splits["train"].texts == [("7",), ("y",)]


def test_pairs(write):
    path = write("a.csv", "q,p,y\nhow,so,1\nwhy,not,0\n")
    task = load_task(text_file(splits={"train": path}, text=["p", "q"], label="y"), ["train"])
    assert task.splits["train"].texts == [("so", "how"), ("not", "why")]


def test_scores(write):
    path = write("a.csv", "text,label\nx,1.5\ny,-1\n")
    task = load_task(text_file(splits={"train": path}, metrics=["pearson", "spearman"]), ["train"])
    assert task.objective.num_outputs == 1 and task.splits["train"].labels == [1.5, -1.0]


@pytest.mark.parametrize("value", ["high", "nan", "inf", ""])
def test_a_score_that_is_no_number(write, value):
    path = write("a.csv", f"text,label\nx,1.5\ny,{value}\n")
    with pytest.raises(UserError, match=r"a\.csv, line 3, column 'label': .* is not a number"):
        load_task(text_file(splits={"train": path}, metrics=["pearson"]), ["train"])


def test_a_missing_column_lists_those_there_are(write):
    path = write("a.csv", "id,txt,label\n1,x,a\n")
    with pytest.raises(UserError) as caught:
        load_task(text_file(splits={"train": path, "validation": path}))
    assert "a.csv, line 1: no column 'text' among 'id', 'txt', 'label'. Did you mean txt?" in str(caught.value)
    assert "task.text" in str(caught.value)


def test_a_key_that_a_later_json_line_lacks(write):
    path = write("a.jsonl", '{"text": "x", "label": 1}\n\n{"text": "y"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 3: no column 'label' among 'text'"):
        load_task(text_file(splits={"train": path}), ["train"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv: the file is empty"),
        ("a.jsonl", "\n \n", r"a\.jsonl: the file is empty"),
        ("a.csv", "text,label\n", r"a\.csv: only a header"),
        ("a.tsv", "text\tlabel\n\n", r"a\.tsv: only a header"),
        ("a.tsv", b"text\tlabel\nok\ta\ncaf\xe9\tb\n", r"a\.tsv, line 3, byte 4: not UTF-8 \(0xe9\)"),
        ("a.csv", b"\xef\xbb\xbfa\xff,label\n", r"a\.csv, line 1, byte 2: not UTF-8"),
        ("a.csv", b"\xff\xfet\x00e\x00", r"a\.csv, line 1, byte 1: not UTF-8"),
        ("a.tsv", "text\tlabel\nx\ta\nno label\n", r"a\.tsv, line 3: 1 cells where the header has 2"),
        ("a.csv", 'text,label\n"never closed,a\nx,b\n', r"a\.csv, line 2: .*check the quotes"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text"\n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1: not JSON .it is nested too deeply"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', r"a\.jsonl, line 1: .* half of a surrogate pair"),
        ("a.jsonl", '{"text": "x", "text": "y", "label": 1}\n', r"a\.jsonl, line 1: not JSON .it says 'text' twice"),
        ("a.jsonl", "[1, 2]\n", r"a\.jsonl, line 1: not a JSON object"),
        ("a.jsonl", '{"text": null, "label": 1}\n', r"a\.jsonl, line 1, column 'text': null is neither"),
        ("a.jsonl", '{"text": NaN, "label": 1}\n', r"a\.jsonl, line 1, column 'text': NaN is neither text nor a"),
        ("a.xlsx", "x", r"a\.xlsx: cannot tell the format; name the file \.csv, \.tsv, \.jsonl"),
        ("a.csv", "text,label\nx,a\ny,a\n", r"column 'label': every label is 'a'"),
    ],
)
def test_bad_files(write, name, content, message):
    path = write(name, content)
    with pytest.raises(UserError, match=message) as caught:
        load_task(text_file(splits={"train": path, "validation": path}))
    assert "\n" not in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"no such file: .*nowhere\.csv"):
        load_task(text_file(splits={"train": str(tmp_path / "nowhere.csv")}))


def test_a_pipe_is_no_file_to_wait_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"cannot read .*a\.csv: it is a pipe"):
        read_columns(tmp_path / "a.csv", ["text"])


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*a\.csv"):
        read_columns(tmp_path / "a.csv", ["text"])


def test_no_files_named():
    with pytest.raises(UserError, match=r"task text_file: no train file; set task\.splits\.train=FILE"):
        load_task(text_file())


def test_a_named_test_file_that_is_missing_is_no_silent_gap(write, tmp_path):
    path = write("a.csv", "text,label\nx,a\ny,b\n")
    with pytest.raises(UserError, match=r"no such file: .*gone\.csv"):
        load_task(text_file(splits={"train": path, "validation": path, "test": str(tmp_path / "gone.csv")}))

"""Answers as lines and columns, whatever the classes and the input's columns are called."""

import csv

from peftbench.serving.inputs import InputRow
from peftbench.serving.outputs import print_tsv, write_csv
from peftbench.serving.predictor import Answer


def answered(labels, cells):
    shares = {label: 1 / len(labels) for label in labels}
    return [[(InputRow(1, ("a\tfilm",), cells), Answer(labels[0], shares))] * 2]


def test_class_names_with_line_breaks_and_tabs_leave_a_line_for_each_row(capsys):
    labels = ["[/b]\n😀\tgood", "=bad"]
    print_tsv(answered(labels, ["x"]), ["te\nxt"], labels)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["prediction", "[/b] 😀 good", "=bad", "te xt"]
    assert rows[1:] == [["[/b] 😀 good", "0.500000", "0.500000", "a film"]] * 2


def test_new_columns_are_called_otherwise_than_the_input_s_and_each_other(tmp_path, capsys):
    labels = ["prediction", "text", "text_2"]
    columns = ["text", "prediction"]
    write_csv(tmp_path / "out.csv", answered(labels, ["a film", "x"]), columns, labels)
    header, *rows = csv.reader((tmp_path / "out.csv").open(newline=""))
    assert header == ["text", "prediction", "prediction_2", "prediction_3", "text_2", "text_2_2"]
    assert rows == [["a film", "x", "prediction", "0.333333", "0.333333", "0.333333"]] * 2
    print_tsv(answered(labels, ["a film", "x"]), ["text"], labels)
    assert capsys.readouterr().out.splitlines()[0].split("\t") == [
        "prediction", "prediction_2", "text_2", "text_2_2", "text",
    ]  # fmt: skip

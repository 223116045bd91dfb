"""Labels that are missing are refused with their rows."""

import pytest
from text_files import text_file

from peftbench.errors import UserError
from peftbench.tasks.text.read import load_task


@pytest.mark.parametrize("missing", ["", "  ", "nan", "NaN"])
def test_a_missing_label_is_refused_with_its_line(tmp_path, missing):
    path = tmp_path / "a.csv"
    path.write_text(f'text,label\nx,a\n"y\nz",{missing}\nw,b\n')
    with pytest.raises(UserError, match=r"a\.csv, line 3, column 'label': no label; fill it in or remove the row"):
        load_task(text_file(splits={"train": str(path)}), ["train"])


def test_of_many_missing_labels_the_first_lines_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "x,a\ny,\n" * 8)
    with pytest.raises(UserError, match=r"lines 3, 5, 7, 9, 11 and 3 more, column 'label': 8 rows have no label"):
        load_task(text_file(splits={"train": str(path)}), ["train"])


def test_a_missing_label_of_validation_and_of_named_classes_is_refused_too(tmp_path):
    train, validation = tmp_path / "train.csv", tmp_path / "validation.csv"
    train.write_text("text,label\nx,a\ny,b\n")
    validation.write_text("text,label\nx,a\ny,\n")
    files = {"train": str(train), "validation": str(validation)}
    for labels in ([], ["a", "b"]):
        with pytest.raises(UserError, match=r"validation\.csv, line 3, column 'label': no label"):
            load_task(text_file(splits=files, labels=labels))


def test_json_null_and_nan_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x", "label": "a"}\n{"text": "y", "label": NaN}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2, column 'label': no label"):
        load_task(text_file(splits={"train": str(path)}), ["train"])


def test_a_class_that_is_named_nan_is_a_class(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,nan\ny,roti\n")
    task = load_task(text_file(splits={"train": str(path)}, labels=["nan", "roti"]), ["train"])
    assert task.splits["train"].labels == [0, 1]


def test_fractions_are_sorted_by_size_too(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,10.0\ny,2.0\nz,1.0\n")
    assert load_task(text_file(splits={"train": str(path)}), ["train"]).labels == ("1.0", "2.0", "10.0")


@pytest.mark.parametrize("written", ["NA", "null", "None", "#N/A"])
def test_a_class_that_is_called_as_what_is_missing_is_worth_a_word(tmp_path, written):
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\nx,{written}\ny,neg\nz,pos\n")
    files = {"train": str(path)}
    (line,) = load_task(text_file(splits=files), ["train"]).faults
    assert line.startswith(f"{written!r} is a class like any other: name the classes in task.labels")
    assert not load_task(text_file(splits=files, labels=[written, "neg", "pos"]), ["train"]).faults

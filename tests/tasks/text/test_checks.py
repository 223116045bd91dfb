"""What is said of data before it is trained on."""

from types import SimpleNamespace

import pytest
from text_files import text_file

from peftbench.errors import UserError
from peftbench.tasks.text.read import load_task


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_dir)


@pytest.fixture
def warnings(tmp_path, tokenizer):
    """A function from the rows of each split to the warnings about them."""

    def warn(header="text,label", max_length=128, labels=(), **splits):
        files = {}
        for name, rows in splits.items():
            files[name] = str(tmp_path / f"{name}.csv")
            (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
        columns = [name for name in dict.fromkeys(header.split(",")) if name.startswith("text")]
        config = text_file(splits=files, text=columns, max_length=max_length, labels=labels)
        task = load_task(config, list(splits))
        return task.warnings(
            {name: task.encode(split, SimpleNamespace(processor=tokenizer)) for name, split in task.splits.items()}
        )

    return warn


ROWS = ["good film,a", "bad plot,b", "a film,a", "the plot,b"]


def test_good_data_gives_no_warning(warnings):
    assert warnings(train=ROWS, validation=["fine film,a", "dull plot,b"]) == []


def test_rows_that_are_in_both_splits_are_counted(warnings):
    (line,) = warnings(train=ROWS, validation=["good film,a", "dull plot,b", "bad plot,a"])
    assert line.startswith("2 of 3 validation rows also occur in the training data (leakage)")


def test_classes_that_are_not_trained_on_are_named(warnings):
    assert warnings(train=ROWS, validation=["dull plot,b"]) == []
    (line,) = warnings(labels=[*"abc"], train=ROWS, validation=["dull plot,c"])
    assert line == "no training row is of class c"


def test_cut_texts_are_counted(warnings):
    (line,) = warnings(train=[f"{'good ' * 20},a", *ROWS], max_length=8)
    assert line == "1 of 5 train rows are cut to task.max_length=8 tokens"


def test_classes_that_differ_in_their_writing_alone(warnings):
    (line,) = warnings(train=2 * ["good film,Good one", "fine film,good one", "bad plot,bad", "a plot,0"])
    assert line == "the classes 'Good one' and 'good one' are written differently, and so are different classes"
    (line,) = warnings(train=2 * ["good film,1", "fine film,1.0", "bad plot,0", "a plot,x01"])
    assert line.startswith("the classes '1' and '1.0' are written differently")


def test_a_class_a_row_is_probably_a_score_or_an_id(warnings):
    (line,) = warnings(train=[f"good film,{number / 7:.3f}" for number in range(30)])
    assert line.startswith("30 classes in 30 training rows: is the label a score")


def test_a_column_that_is_there_twice(warnings):
    (line,) = warnings(header="text,label,text", train=["good film,a,x", "bad,b,y", "film,a,x", "a plot,b,y"])
    assert "there is more than one column 'text'; the first is used" in line


def test_two_text_columns_with_the_same_texts(warnings):
    rows = ["good,good,a", "bad,bad,b", "film,film,a", "plot,plot,b"]
    assert warnings(header="text1,text2,label", train=rows) == ["the two text columns are the same in every train row"]


def test_empty_texts_are_counted(warnings):
    assert warnings(train=[*ROWS, ",a"]) == ["1 of 5 train rows have an empty text"]


def test_a_language_that_the_tokenizer_does_not_know_is_refused(warnings):
    with pytest.raises(UserError, match=r"100 % of the train split's tokens are unknown to the model's tokenizer"):
        warnings(train=["映画 良い,a", "映画 悪い,b"])

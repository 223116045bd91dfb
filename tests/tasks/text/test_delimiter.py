"""CSV files with other signs than commas between their cells."""

import csv
import io

import pytest
from text_files import text_file

from peftbench.errors import UserError
from peftbench.tasks.text.delimiter import DELIMITERS, find_delimiter
from peftbench.tasks.text.read import load_task

TEXTS = [
    "plain",
    'says "no"; twice, or | thrice',
    "one,two,three",
    "a\ttab",
    "two\nlines; with, signs",
    '"',
    "a;b;c;d|e|f,g,h",
    'ends in "quotes"',
]


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_a_table_program_writes_is_read(tmp_path, delimiter, quoting):
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter, quoting=quoting)
    writer.writerow(["id", "text", "label"])
    writer.writerows([number, text, "ab"[number % 2]] for number, text in enumerate(TEXTS))
    path = tmp_path / "a.csv"
    path.write_text(written.getvalue(), newline="")
    task = load_task(text_file(splits={"train": str(path)}), ["train"])
    assert task.splits["train"].texts == [(text.strip(),) for text in TEXTS]
    assert task.splits["train"].labels == [number % 2 for number in range(len(TEXTS))]


def test_unquoted_commas_between_semicolons(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text;label\nwell, well, well;a\nso, so;b\n")
    assert load_task(text_file(splits={"train": str(path)}), ["train"]).splits["train"].texts[0] == (
        "well, well, well",
    )


def test_a_misspelled_column_is_named_among_the_right_ones(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("txt;label\nwell, well;a\nso;b\n")
    with pytest.raises(UserError, match=r"no column 'text' among 'txt', 'label'"):
        load_task(text_file(splits={"train": str(path)}), ["train"])


def test_one_column_alone_and_a_sample_cut_short():
    assert find_delimiter("text\nwell, well\n", [["text"]]) == ","
    assert find_delimiter("a;b\n" + "x, y, z;1\n" * 20_000, [["text"]]) == ";"


def test_a_text_longer_than_pythons_own_limit(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'x' * 200_000},a\ny,b\n")
    assert len(load_task(text_file(splits={"train": str(path)}), ["train"]).splits["train"].texts[0][0]) == 200_000

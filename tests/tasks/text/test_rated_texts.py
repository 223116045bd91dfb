"""Texts with the mean of human ratings: what is left out, and splits that a hash of the document decides."""

from collections import defaultdict

import pytest
from test_read import task_config

from peftbench.errors import UserError
from peftbench.tasks.text import sources
from peftbench.tasks.text.read import load_task

FILE = "nytEditorialSnippets_GroundTruth.txt"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "fetch_packages", lambda config, other_ways: tmp_path)

    def loaded(preset, lines):
        (tmp_path / FILE).write_text("".join(f"{line}\r\n" for line in lines), "utf-8")
        return load_task(task_config(preset))

    return loaded


def lines_of(documents, sentences=4):
    return [f"{d}_{s}\t{(s - 1.5) / 2}\ttext {d} {s}" for d in range(documents) for s in range(sentences)]


def test_a_document_is_in_one_split_and_the_shares_are_about_those_said(load):
    task = load("nyt", lines_of(1000))
    found = defaultdict(set)
    for name, split in task.splits.items():
        for (text,) in split.texts:
            found[text.split()[1]].add(name)
    assert len(found) == 1000 and all(len(names) == 1 for names in found.values())
    shares = {name: len(split) / 4000 for name, split in task.splits.items()}
    assert shares == pytest.approx({"train": 0.6, "validation": 0.15, "test": 0.25}, abs=0.04)


def test_more_rows_move_none_from_split_to_split(load):
    few, many = load("nyt", lines_of(50)), load("nyt", lines_of(100))
    for name, split in few.splits.items():
        assert set(split.texts) <= set(many.splits[name].texts)


def test_scores_are_the_mean_ratings(load):
    task = load("nyt", lines_of(50))
    by_text = {
        text: score for split in task.splits.values() for (text,), score in zip(split.texts, split.labels, strict=True)
    }
    assert by_text["text 7 0"] == -0.75 and by_text["text 7 3"] == 0.75


def test_a_text_that_comes_again_is_dropped(load):
    task = load("nyt", [*lines_of(50), "60_0\t0.5\t  Text 7   0", "60_1\t0.5\tanother"])
    texts = [text for split in task.splits.values() for (text,) in split.texts]
    assert len(texts) == 201 and "another" in texts


def test_polarity_is_that_of_the_mean_and_a_mean_of_0_has_none(load):
    lines = [f"{d}_{s}\t{mean}\ttext {d} {s}" for d in range(50) for s, mean in enumerate(["-0.05", "0", "0.0", "2"])]
    task = load("nyt_binary", lines)
    pairs = [pair for split in task.splits.values() for pair in zip(split.texts, split.labels, strict=True)]
    assert len(pairs) == 100
    assert {(text.split()[2], label) for (text,), label in pairs} == {("0", 0), ("3", 1)}


def test_a_line_without_a_text_is_named(load):
    with pytest.raises(UserError, match=rf"{FILE}, line 2: 2 cells, at least 3 expected"):
        load("nyt", ["1_1\t0.5\tfine", "1_2\t0.5"])


def test_a_package_without_a_known_data_set():
    config = task_config("nyt", packages=[{"name": "vaderSentimen", "version": "1", "sha256": "0" * 64}])
    with pytest.raises(UserError, match=r"no data set is known in package vaderSentimen\. .*vaderSentiment"):
        load_task(config)

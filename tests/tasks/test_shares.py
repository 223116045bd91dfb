"""A share of the training data: every class in proportion, the same each time, no row twice."""

from collections import Counter

import pytest
from text_files import text_file

from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.config.task import TextTaskConfig
from peftbench.errors import UserError
from peftbench.tasks.shares import divide
from peftbench.tasks.text.read import load_task


def test_classes_keep_their_proportions_and_no_row_is_lost():
    labels = [0] * 700 + [1] * 250 + [2] * 50
    parts = divide(labels, {"validation": 0.2, "test": 0.1})
    assert sorted(row for rows in parts.values() for row in rows) == list(range(1000))
    for name, expected in (("validation", (140, 50, 10)), ("test", (70, 25, 5)), ("train", (490, 175, 35))):
        counts = Counter(labels[row] for row in parts[name])
        assert all(abs(counts[label] - number) <= 1 for label, number in enumerate(expected))
        assert parts[name] == sorted(parts[name])
    assert parts == divide(labels, {"validation": 0.2, "test": 0.1})
    assert parts["validation"] != divide(labels[::-1], {"validation": 0.2})["validation"]


def test_a_label_that_occurs_once_is_trained_on():
    assert 4 in divide([0, 0, 0, 0, 1, 0, 0], {"validation": 0.5})["train"]


def test_a_row_of_every_class_is_trained_on():
    labels = [*sorted([*range(50)] * 2), *[50] * 100]
    parts = divide(labels, {"validation": 0.2, "test": 0.2})
    assert {labels[row] for row in parts["train"]} == set(range(51))
    assert sorted(row for rows in parts.values() for row in rows) == list(range(200))
    assert all(30 <= len(parts[name]) <= 40 for name in ("validation", "test"))


def test_scores_are_spread_over_their_range():
    scores = [row / 100 for row in range(100)]
    rows = divide(scores, {"validation": 0.25})["validation"]
    assert len(rows) == 25 and all(any(low <= row < low + 20 for row in rows) for low in range(0, 100, 20))


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match=r"task\.splits\.validation=0\.6, task\.splits\.test=0\.4: together"):
        divide([0, 1] * 5, {"validation": 0.6, "test": 0.4})
    with pytest.raises(UserError, match=r"task\.splits\.validation=0\.01: of 10 rows that is none"):
        divide([0, 1] * 5, {"validation": 0.01})
    with pytest.raises(UserError, match=r"task\.splits\.validation=0\.99: that leaves 0 of 10 rows to train on"):
        divide([0, 1] * 5, {"validation": 0.99})
    with pytest.raises(UserError, match=r"leaves 1 of 10 rows to train on, all of one label"):
        divide([0, 1] * 5, {"validation": 0.5, "test": 0.4})
    with pytest.raises(UserError, match=r"task\.splits\.validation: no label occurs twice"):
        divide(list(range(10)), {"validation": 0.2})


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("text,label\n" + "".join(f"text {row},{'ab'[row % 3 == 0]}\n" for row in range(60)))
    return str(path)


def test_one_file_gives_both_splits(own_file):
    task = load_task(text_file(splits={"train": own_file, "validation": 0.2, "test": None}))
    train, validation = task.splits["train"], task.splits["validation"]
    assert (len(train), len(validation)) == (48, 12) and sum(validation.labels) == 4
    assert not set(train.texts) & set(validation.texts)
    alone = load_task(text_file(splits={"train": own_file, "validation": 0.2}, labels=["a", "b"]), ["validation"])
    assert list(alone.splits) == ["validation"] and alone.splits["validation"] == validation


def test_the_data_digest_covers_the_share(own_file):
    digests = {
        load_task(text_file(splits={"train": own_file, "validation": share})).checksum for share in (0.2, 0.2, 0.3)
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    "splits, reason",
    [
        ({"validation": 20}, r"task\.splits\.validation=20 must be a file, or a share .* such as 0\.2"),
        ({"validation": 0.0}, "must be a file, or a share"),
        ({"train": 0.5}, r"task\.splits\.train=0\.5 must be a file"),
    ],
)
def test_a_share_lies_between_0_and_1(splits, reason):
    with pytest.raises(UserError, match=reason):
        TextTaskConfig(name="x", source="local", text=["text"], metrics=["accuracy"], splits=splits)


def test_a_share_works_for_any_source(tmp_path):
    rows = "".join(f"one {row}\ttwo\t{row % 2}\n" for row in range(50))
    (tmp_path / "train.tsv").write_text("sentence1\tsentence2\tlabel\n" + rows)
    config = resolve(compose(["task=rte", f"task.dir={tmp_path}", "+task.splits.validation=0.2"])).task
    task = load_task(config)
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 40, "validation": 10}

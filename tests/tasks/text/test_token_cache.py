"""The cache of tokenized splits: found again, the same, and never trusted when damaged or foreign."""

import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from peftbench.tasks.text import cache
from peftbench.tasks.text.batching import encode
from peftbench.tasks.text.task import TextSplit, TextTask

ROWS = 30


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("peftbench.tasks.text.task.LEAST_ROWS", ROWS)
    return tmp_path / "tokenized"


@pytest.fixture
def tokenizer(tiny_model_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_dir)


def task(rows=ROWS, word="good", max_length=12):
    texts = [(f"the film was {'and ' * (row % 9)}{word}", "a plot") for row in range(rows)]
    split = TextSplit(texts, [row % 2 for row in range(rows)])
    return TextTask("opinions", None, ("bad", "good"), ("accuracy",), {"train": split}, "here", ("a", "b"), max_length)


def encoded(task, tokenizer):
    return task.encode_split("train", SimpleNamespace(processor=tokenizer))


def assert_same(found, expected):
    assert set(found.columns) == set(expected.columns) and torch.equal(found.labels, expected.labels)
    assert all(np.array_equal(found.columns[name], column) for name, column in expected.columns.items())
    assert np.array_equal(found.offsets, expected.offsets)
    assert (found.padding, found.truncated, found.unknown) == (expected.padding, expected.truncated, expected.unknown)


@pytest.fixture
def counted(monkeypatch):
    """How often texts were tokenized."""
    calls = []
    monkeypatch.setattr("peftbench.tasks.text.task.encode", lambda *args: calls.append(1) or encode(*args))
    return calls


def test_the_second_time_nothing_is_tokenized(folder, tokenizer, counted):
    first, second = encoded(task(), tokenizer), encoded(task(), tokenizer)
    plain = task().encode(task().splits["train"], SimpleNamespace(processor=tokenizer))
    assert len(counted) == 2 and plain.truncated
    assert_same(first, plain)
    assert_same(second, plain)
    assert isinstance(second.columns["input_ids"].base, np.memmap)
    batch, expected = second.batch([3, 0, 7]), plain.batch([3, 0, 7])
    assert all(torch.equal(batch[name], column) for name, column in expected.items())


def test_other_texts_lengths_and_tokenizers_have_files_of_their_own(folder, tokenizer, tiny_model_dir, tmp_path):
    for other in (task(), task(word="bad"), task(max_length=11)):
        encoded(other, tokenizer)
    copy = tmp_path / "copy"
    copy.mkdir()
    text = (tiny_model_dir / "tokenizer.json").read_text().replace('"dull": 8', '"grey": 8')
    (copy / "tokenizer.json").write_text(text)
    (copy / "tokenizer_config.json").write_text((tiny_model_dir / "tokenizer_config.json").read_text())
    encoded(task(), type(tokenizer).from_pretrained(copy))
    assert len(list(folder.iterdir())) == 4


def test_few_rows_are_not_kept(folder, tokenizer):
    encoded(task(rows=ROWS - 1), tokenizer)
    assert not folder.exists()


def test_what_was_not_used_for_longest_is_removed_where_there_is_too_much(folder, tokenizer, monkeypatch):
    made = {}
    for age, word in enumerate(("good", "bad", "fine"), start=-3):
        encoded(task(word=word), tokenizer)
        (path,) = set(folder.iterdir()) - set(made.values())
        os.utime(path, (time.time() + 100 * age,) * 2)
        made[word] = path
    encoded(task(word="good"), tokenizer)  # used again
    monkeypatch.setattr(cache, "MOST_BYTES", sum(path.stat().st_size for path in made.values()))
    encoded(task(word="dull"), tokenizer)
    assert not made["bad"].exists() and made["good"].exists() and made["fine"].exists()
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(cache, "MOST_BYTES", 1)
    assert_same(
        encoded(task(word="plot"), tokenizer),
        task(word="plot").encode(task(word="plot").splits["train"], SimpleNamespace(processor=tokenizer)),
    )
    assert not list(folder.iterdir())


def flip_a_bit(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 4]) + data[-99:]


def of_another_key(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["key"] = "0" * 32
    text = json.dumps(header).encode().ljust(size)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        of_another_key,
        lambda data: data[:-10],
        lambda data: data[:50],
        lambda data: b"",
        lambda data: b"\xff" * 5000,
        lambda data: b"not a cache file at all",
    ],
)
def test_a_damaged_or_foreign_file_is_made_anew(folder, tokenizer, damage):
    good = encoded(task(), tokenizer)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(whole))
    assert_same(encoded(task(), tokenizer), good)
    assert_same(cache._read(path, path.stem, good.labels), good)


def test_a_folder_that_cannot_be_written_costs_only_time(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("peftbench.tasks.text.task.LEAST_ROWS", ROWS)
    assert_same(encoded(task(), tokenizer), task().encode(task().splits["train"], SimpleNamespace(processor=tokenizer)))


def test_the_key_covers_the_versions(folder, tokenizer, monkeypatch):
    before = cache._key("0" * 16, tokenizer, 12)
    monkeypatch.setattr(cache, "version", lambda package: "0.0")
    assert cache._key("0" * 16, tokenizer, 12) != before

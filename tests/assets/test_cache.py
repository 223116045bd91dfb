"""Digests of files: right after every change, and taken once where there was none."""

import hashlib
import json
import os

import pytest

from peftbench.assets import cache
from peftbench.assets.cache import file_digest
from peftbench.assets.hub import _damaged_files
from peftbench.assets.weights import weights_digest
from peftbench.runs import digests


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_digests", {})


@pytest.fixture
def reads(monkeypatch):
    """The paths whose contents were hashed."""
    hashed = []
    digest = hashlib.file_digest

    def counted(file, kind):
        hashed.append(file.name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return hashed


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_an_unchanged_file_is_read_once_in_a_process_and_by_the_next(tmp_path, reads, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    monkeypatch.setattr(cache, "_YOUNG_SECONDS", -1.0)
    assert file_digest(path) == file_digest(path) == sha256(b"weights")
    assert len(reads) == 1
    monkeypatch.setattr(cache, "_digests", {})  # another process
    assert file_digest(path) == sha256(b"weights")
    assert len(reads) == 1


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    monkeypatch.setattr(cache, "_YOUNG_SECONDS", -1.0)
    file_digest(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=times)
    assert file_digest(path) == sha256(b"WEIGHTS")


def test_a_young_file_is_read_again(tmp_path, reads):
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    assert file_digest(path) == file_digest(path)
    assert len(reads) == 2


def test_a_damaged_or_unwritable_memory_costs_nothing_but_time(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    monkeypatch.setattr(cache, "_YOUNG_SECONDS", -1.0)
    (tmp_path / "cache").mkdir()
    for damaged in (b"", b"[1]", b'{"a": 1}', b"\xff\x00"):
        (tmp_path / "cache" / "digests.json").write_bytes(damaged)
        monkeypatch.setattr(cache, "_digests", {})
        assert file_digest(path) == sha256(b"weights")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(path / "no folder"))
    monkeypatch.setattr(cache, "_digests", {})
    assert file_digest(path) == sha256(b"weights")


@pytest.mark.parametrize("name", ["/tmp/" + "a" * 300, "/tmp/\0"])
def test_a_name_that_the_system_takes_for_none_is_forgotten(name, tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    monkeypatch.setattr(cache, "_YOUNG_SECONDS", -1.0)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "digests.json").write_text(json.dumps({name: [[1, 2, 3, 4], "x"]}))
    assert file_digest(path) == sha256(b"weights")
    assert list(json.loads((tmp_path / "cache" / "digests.json").read_text())) == [str(path)]


def test_records_see_a_change_that_keeps_size_and_time(tmp_path, monkeypatch, reads):
    path = tmp_path / "result.json"
    path.write_bytes(b"good")
    os.utime(path, (0, 0))
    monkeypatch.setattr(cache, "_YOUNG_SECONDS", -1.0)
    assert digests.sha256(path) == digests.sha256(path) == sha256(b"good")
    assert len(reads) == 1
    path.write_bytes(b"evil")
    os.utime(path, (0, 0))
    assert digests.sha256(path) == sha256(b"evil")


def model_folder(folder, weights=b"weights"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "README.md").write_bytes(b"anything")
    return folder


def test_the_digest_of_a_model_follows_its_contents_not_its_folder(tmp_path):
    first = model_folder(tmp_path / "first")
    digest = weights_digest(first, "local")
    assert digest.startswith("sha256:") and len(digest) == 7 + 64
    assert weights_digest(model_folder(tmp_path / "second"), "local") == digest
    assert weights_digest(model_folder(tmp_path / "third", b"weightz"), "local") != digest
    (first / "README.md").write_bytes(b"changed")
    assert weights_digest(first, "local") == digest
    (first / "vocab.txt").write_bytes(b"[PAD]")
    assert weights_digest(first, "local") != digest


def test_the_digest_of_a_hub_snapshot_is_its_commit(tmp_path):
    commit = "0123456789abcdef" * 2 + "01234567"
    folder = model_folder(tmp_path / "models--acme--tiny" / "snapshots" / commit)
    assert weights_digest(folder, "hub") == f"commit:{commit}"
    assert weights_digest(folder, "local").startswith("sha256:"), "anybody may have changed it"


def test_damage_in_the_hub_s_cache_is_seen_by_the_blobs_names(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    weights, config = b"weights", b"{}"
    names = {
        "model.safetensors": (sha256(weights), weights),
        "config.json": (hashlib.sha1(b"blob 2\0{}").hexdigest(), config),
    }
    for name, (blob, content) in names.items():
        (blobs / blob).write_bytes(content)
        (tmp_path / name).symlink_to(blobs / blob)
    assert _damaged_files(tmp_path) == []
    for name, (blob, content) in names.items():
        (blobs / blob).write_bytes(content[::-1])
        assert _damaged_files(tmp_path) == [tmp_path / name]
        (blobs / blob).write_bytes(content)

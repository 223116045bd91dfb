"""A task's archive is unpacked once, and again where what was unpacked is not what it was."""

import io
import os
import tarfile

import pytest

from peftbench.assets.archive import unpacked_archive


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "images.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name in "ab":
            member = tarfile.TarInfo(f"images/{name}.jpg")
            member.size = 4
            packed.addfile(member, io.BytesIO(b"good"))
    return path


def test_what_was_written_over_an_unpacked_file_is_not_used(archive):
    folder = unpacked_archive(archive)
    (folder / "b.jpg").unlink()
    assert (unpacked_archive(archive) / "b.jpg").read_bytes() == b"good"
    (folder / "a.jpg").write_bytes(b"evil")
    os.utime(folder / "a.jpg", (0, 0))  # a write within the clock's tick would keep the time
    assert (unpacked_archive(archive) / "a.jpg").read_bytes() == b"good"


def test_what_has_not_changed_is_not_unpacked_again(archive):
    first = (unpacked_archive(archive) / "a.jpg").stat()
    assert (unpacked_archive(archive) / "a.jpg").stat().st_ino == first.st_ino


def test_a_copy_that_cannot_be_written_to_is_used_as_it_is(archive, monkeypatch):
    folder = unpacked_archive(archive)
    os.utime(folder / "a.jpg", (0, 0))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    first = (folder / "a.jpg").stat()
    assert (unpacked_archive(archive) / "a.jpg").stat() == first

"""What source code comes to: right whatever the cache folder holds, and parsed once where it can be written."""

import ast
import json

import pytest

from peftbench.runs import parsed_code
from peftbench.runs.parsed_code import parse, remember

SOURCE = b'''"""A module."""
import a.b
from c import d


def act():
    """Act."""  # loudly
    from e.f import g, h
'''


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    start_anew(monkeypatch)
    return tmp_path / "cache"


def start_anew(monkeypatch):
    """Forget what this process knows, as another process does not know it."""
    monkeypatch.setattr(parsed_code, "_known", {})
    monkeypatch.setattr(parsed_code, "_unsaved", {})


@pytest.fixture
def parsed(monkeypatch):
    """The sources that were really parsed."""
    sources, real = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda source: sources.append(source) or real(source))
    return sources


def test_imports_are_found_in_functions_too():
    assert parse(SOURCE)[1] == ["a.b", "c", "c.d", "e.f", "e.f.g", "e.f.h"]


def test_comments_docstrings_and_layout_do_not_count():
    digest, _ = parse(SOURCE)
    assert parse(SOURCE.replace(b"Act.", b"Wait.").replace(b"# loudly", b"").replace(b"\n\n\n", b"\n"))[0] == digest
    assert parse(SOURCE.replace(b"a.b", b"a.c"))[0] != digest


def test_another_process_does_not_parse_again(cache, parsed, monkeypatch):
    first = parse(SOURCE)
    remember()
    start_anew(monkeypatch)
    assert parse(SOURCE) == first and len(parsed) == 1
    parse(SOURCE + b"x = 1\n")
    remember()
    (file,) = cache.iterdir()
    assert len(json.loads(file.read_text())) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"a": ["x", 1]}', "\0"])
def test_a_damaged_file_holds_nothing_and_is_written_anew(cache, content, monkeypatch):
    expected = parse(SOURCE)
    remember()
    (file,) = cache.iterdir()
    file.write_text(content)
    start_anew(monkeypatch)
    assert parse(SOURCE) == expected
    remember()
    assert list(json.loads(file.read_text()).values()) == [list(expected)]


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "file"))
    expected = parse(SOURCE)
    remember()
    start_anew(monkeypatch)
    assert parse(SOURCE) == expected


def test_the_oldest_are_forgotten(cache, monkeypatch):
    monkeypatch.setattr(parsed_code, "_MOST", 2)
    for number in range(3):
        parse(f"x = {number}".encode())
        remember()
    (file,) = cache.iterdir()
    assert set(json.loads(file.read_text())) == set(list(parsed_code._known)[1:])


def test_what_is_not_python_is_an_error_each_time():
    for _ in range(2):
        with pytest.raises(SyntaxError):
            parse(b"def")

"""Whatever stands in a label or a name is shown as it is: no markup, no emoji, no control character has an effect."""

import io
import json
import sys

import pytest
from rich.table import Table
from rich.text import Text

from peftbench.terminal import console, print_as_json, print_error, print_table, printable

NAMES = ["[/b]", "[bold]", "[link=x]", ":smile:", "\x1b[31mred", "a\x07b", "\x9b1A", "a\rb", "‮evil", "\\[x]"]


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def out(request, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(console, "_file", file)
    monkeypatch.setattr(console, "_force_terminal", request.param)
    monkeypatch.setattr(console, "no_color", True)
    return file


def shown(name):
    return name.translate({0x1B: "\\x1b", 7: "", 0x9B: "\\x9b", 13: "", 0x202E: "\\u202e"})


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name, out):
    table = Table(name, box=None)
    table.add_row(name)
    console.print(name)
    console.print(Text(name))
    print_table(table)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[0] == shown(name)
    assert shown(name) in "".join(lines[1:])
    assert not {"\x1b", "\x07", "\x9b", "\r", "‮"} & set(out.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", ""))


def test_a_stream_that_says_nothing_of_what_it_wrote_will_do(monkeypatch):
    class Silent(io.StringIO):
        def write(self, text):
            super().write(text)

    monkeypatch.setattr("sys.stdout", Silent())
    console.print("a line")
    assert "a line" in sys.stdout.getvalue()


def test_an_error_is_one_line(capsys):
    print_error(ValueError("label 'a\nb\x1b[2J' [/b] of\r\nmine"))
    assert capsys.readouterr().err == "peftbench: label 'a b\\x1b[2J' [/b] of mine\n"


def test_printable_leaves_letters_alone():
    assert printable("é ± – 好 🙂\n") == "é ± – 好 🙂\n"
    assert printable("\udcff") == "\\udcff"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_can_be_read_whatever_the_terminal_can_show(encoding, monkeypatch):
    value = {"image": "\U0001f600ü.png", "odd": "x\udcff.png"}
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape"))
    print_as_json(value)
    sys.stdout.flush()
    assert json.loads(file.getvalue().decode(encoding)) == value

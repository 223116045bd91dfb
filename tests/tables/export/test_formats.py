"""Markdown, CSV, JSON, LaTeX and the terminal: what a reader or a program finds in them."""

import csv
import io
import json
import re
import shutil
import subprocess

import pytest
from made_table import SPECIAL, made_table
from markdown_it import MarkdownIt
from rich.console import Console

from peftbench.errors import UserError
from peftbench.tables.export.formats import FORMATS, TEXTS, check_formats, write_table
from peftbench.tables.export.terminal import to_terminal


def text(name: str) -> str:
    return TEXTS[name][1](made_table())


def test_markdown_is_a_table_with_one_width():
    lines = [line for line in text("markdown").splitlines() if line.startswith("|")]
    first = lines[: len(made_table().rows) + 2]
    assert len({line.replace("\\|", "").count("|") for line in first}) == 1
    assert first[0].startswith("|  | Accuracy, % | the lab |")
    assert "| 86.0 ± 1.0 | 84 ✓ |" in first[2]
    assert "**−5.4 ± 0.6**" in text("markdown") and "**−3.6" not in text("markdown")
    assert "\\<m = 64>" in text("markdown")  # not taken for HTML


def test_markdown_keeps_notes_apart_from_verdicts_and_published_figures():
    page = MarkdownIt().render(text("markdown"))
    lists = re.findall(r"<p>([^<]*):</p>\s*<ul>(.*?)</ul>", page, re.DOTALL)
    assert len(lists) == page.count("<ul>") > 1
    of_table = len(made_table().reading) + len(made_table().notes)
    assert dict(lists)["Notes"].count("<li>") == of_table + 1, "and what the lab's figures are"


def test_latex_has_the_notes_below_the_figures():
    _, found, below = text("latex").partition(r"\end{tabular}}")
    assert found and "3 runs are missing: peftbench sweep table=lab/methods makes them." in below


def test_csv_holds_every_figure():
    rows = list(csv.DictReader(io.StringIO(text("csv"))))
    (found,) = [row for row in rows if (row["row"], row["column"]) == (SPECIAL, "difference")]
    assert (float(found["value"]), float(found["low"]), found["differs"]) == (-5.4, -7.9, "True")
    (found,) = [row for row in rows if (row["row"], row["column"]) == (SPECIAL, "accuracy")]
    assert (found["unit"], found["lab"], found["verdict"]) == ("%", "77.5", "does not hold")
    assert found["runs"].split() == [f"adapter-mrpc-minilm-s{seed}" for seed in range(3)]


def test_json_is_the_whole_table():
    assert json.loads(text("json")) == json.loads(json.dumps(made_table().plain()))


def test_the_terminal_shows_figures_reasons_and_verdicts():
    console = Console(width=200, file=io.StringIO(), legacy_windows=False)
    console.print(to_terminal(made_table()))
    shown = console.file.getvalue()
    for part in ("86.0 ± 1.0", "77.5 ✗", "82 ?", "1 failed", "3 missing", *made_table().notes, *made_table().reading):
        assert part in shown


def test_latex_compiles(tmp_path):
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex: Debian's texlive-latex-recommended has it")
    document = [
        r"\documentclass{article}",
        r"\usepackage{amssymb,booktabs,graphicx}",
        r"\begin{document}",
        text("latex"),
    ]
    (tmp_path / "page.tex").write_text("\n".join([*document, r"\end{document}"]), encoding="utf-8")
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 5000


def test_every_format_is_written_whole(tmp_path):
    files = write_table(made_table(), tmp_path / "out")
    assert {path.suffix.removeprefix(".") for path in files} == {"md", "csv", "json", "tex", "html", "png", "svg"}
    assert all(path.stat().st_size > 200 for path in files)
    assert sorted(tmp_path.glob("out/*")) == sorted(files)


def test_an_unknown_format():
    with pytest.raises(UserError, match="no format 'markdwn'. Did you mean markdown"):
        check_formats(["markdwn"])
    check_formats(FORMATS)

"""What the README and docs tell people to type is right: overrides compose, options parse, commands and pages exist."""

import importlib
import re
import shlex

import pytest
from conftest import ROOT

from peftbench import cli
from peftbench.config.compose import compose, expand
from peftbench.config.schema import resolve
from peftbench.sweeps.request import read_request
from peftbench.sweeps.tasks import split_tasks
from peftbench.tables.columns import COLUMNS
from peftbench.tables.spec import KEYS

README = (ROOT / "README.md").read_text()
# the examples of extending.md are run by a test of their own, with the files they need
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
LINES = [
    line.removeprefix("$ ").partition(" #")[0].strip()
    for path, text in PAGES.items()
    if path.name != "extending.md"
    for block in re.findall(r"```(?:bash|console)\n(.*?)```", text, re.DOTALL)
    for line in block.splitlines()
]
COMMANDS = sorted({line for line in LINES if line.startswith("peftbench ")})


@pytest.fixture
def documented_table(tmp_path, monkeypatch):
    """The folder `FOLDER` with the table that tables.md shows."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGES[ROOT / "docs" / "tables.md"], re.DOTALL)
    (tmp_path / "FOLDER" / "table").mkdir(parents=True)
    (tmp_path / "FOLDER" / "table" / "ranks.yaml").write_text(shown)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", COMMANDS)
def test_command(line, documented_table, capsys):
    _, command, *rest = shlex.split(line)
    assert command in cli.COMMANDS
    if command == "train":
        multirun = "-m" in rest
        overrides = [word for word in rest if word != "-m"]
        for combination in expand(overrides) if multirun else [overrides]:
            assert resolve(compose(combination)).method_name
    elif command == "sweep" and any(word.startswith("table=") for word in rest):
        assert all(read_request(of_task, tunes=True).planned for of_task in split_tasks(rest))
    elif command in ("list", "params"):
        assert cli.main([command, *rest]) == 0
    else:
        module = importlib.import_module(f"peftbench.commands.{command}")
        module.build_parser().parse_args(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if not link.startswith("http"):
            path, _, heading = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target.read_text()), link


def headings(text):
    """The headings of a page as links name them."""
    return {re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"train", "test", "check"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_what_a_table_s_file_may_hold_is_described():
    described = set(re.findall(r"`([a-z_0-9]+)`", PAGES[ROOT / "docs" / "tables.md"].partition("| key of the file")[2]))
    assert {*COLUMNS, *KEYS} <= described


def test_the_first_table_s_figures_are_those_of_the_results():
    over_tasks = (ROOT / "docs" / "results" / "minilm-family.md").read_text()
    mrpc = (ROOT / "docs" / "results" / "minilm-mrpc" / "family.md").read_text()
    lines = README.partition("| method | trained, % |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(lines) == 12
    for line in lines:
        *scores, latency, step = [cell.strip() for cell in line.split("|")[3:-1]]
        row = row_with(over_tasks, f"| {scores[0]} |", f"| {scores[1]} |", f"| {scores[2]} |")
        assert all(f"| {cell} |" in row for cell in scores), line
        label = row.split("|")[1]
        costs = row_with(mrpc, f"|{label}|").split("|")
        assert step in (f"{float(cell):.2f}" for cell in costs[2:] if re.fullmatch(r" \d\.\d\d ", cell)), line
        shown = [f"{float(cell):.2f}" for cell in costs if re.fullmatch(r" \d\.\d{3} ", cell)]
        assert set(re.findall(r"\d\.\d\d", latency)) <= set(shown), line


def row_with(text, *parts):
    (row,) = (line for line in text.splitlines() if line.startswith("| ") and all(part in line for part in parts))
    return row

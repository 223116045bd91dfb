"""What a figure depends on besides its config: the digest of the code that a run used."""

import shutil

import pytest

from peftbench.runs import origin

LORA = ["peftbench.methods.lora", "peftbench.backbones.layouts.bert", "peftbench.training.loop"]
FILE = '''"""A new method."""

from peftbench.methods.base import Method, register


class New(Method):
    """Nothing yet."""
'''


def as_a_new_process():
    """Forget the files that were read."""
    origin._closure_digest.cache_clear()
    origin._read_module.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's source whose files a test may change."""
    copy = tmp_path / "peftbench"
    shutil.copytree(origin.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(origin, "PACKAGE", copy)
    yield copy
    as_a_new_process()


def append(path, text):
    path.write_text(path.read_text() + text)
    as_a_new_process()


def test_the_digest_is_the_same_for_the_same_code(package):
    assert origin.code_digest(LORA) == origin.code_digest(reversed(LORA))
    assert origin.code_digest(LORA) != origin.code_digest(["peftbench.methods.adapter", *LORA[1:]])


@pytest.mark.parametrize(
    "file",
    ["training/loop.py", "training/optimizer.py", "methods/lora.py", "methods/base.py", "backbones/layouts/bert.py"],
)
def test_code_that_a_run_used_changes_it(package, file):
    before = origin.code_digest(LORA)
    append(package / file, "\nCHANGED = 1\n")
    assert origin.code_digest(LORA) != before


@pytest.mark.parametrize(
    "file", ["commands/runs.py", "runs/record.py", "methods/prompt.py", "backbones/layouts/mpnet.py", "cli.py"]
)
def test_code_that_it_did_not_use_leaves_it(package, file):
    before = origin.code_digest(LORA)
    append(package / file, "\nCHANGED = 1\n")
    assert origin.code_digest(LORA) == before


@pytest.mark.parametrize("folder", ["methods", "backbones/layouts"])
def test_a_new_method_or_layout_makes_nothing_stale(package, folder):
    before = origin.code_digest(LORA)
    (package / folder / "new.py").write_text(FILE)
    append(package / folder / "__init__.py", "\nNAMES = ['new']\n")
    assert origin.code_digest(LORA) == before


def test_comments_docstrings_and_layout_make_nothing_stale(package):
    before = origin.code_digest(LORA)
    loop = package / "training" / "loop.py"
    text = loop.read_text()
    docstring = text.split('"""')[1]
    loop.write_text("# a comment\n\n" + text.replace(docstring, "Another docstring.", 1).replace("\n\n\n", "\n\n\n\n"))
    append(loop, "\n# another\n")
    assert origin.code_digest(LORA) == before


def test_a_method_that_builds_on_another_changes_with_it(package):
    lora = package / "methods" / "lora.py"
    lora.write_text("from peftbench.methods.prompt import PromptConfig\n" + lora.read_text())
    before = origin.code_digest(LORA)
    append(package / "methods" / "prompt.py", "\nCHANGED = 1\n")
    assert origin.code_digest(LORA) != before


def test_a_module_that_is_gone_changes_it(package):
    before = origin.code_digest(LORA)
    (package / "methods" / "lora.py").unlink()
    as_a_new_process()
    assert origin.code_digest(LORA) != before


def test_a_method_outside_the_package_counts(tmp_path, monkeypatch):
    plugin = tmp_path / "my_plugin_method.py"
    plugin.write_text("from peftbench.methods.base import Method\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = origin.code_digest(["my_plugin_method"])
    append(plugin, "CHANGED = 1\n")
    assert origin.code_digest(["my_plugin_method"]) != before
    as_a_new_process()


def test_what_is_edited_while_a_process_runs_changes_nothing_in_it(package):
    before = origin.code_digest(LORA)
    loop = package / "training" / "loop.py"
    loop.write_text(loop.read_text() + "\nCHANGED = 1\n")
    assert origin.code_digest(LORA) == before


def test_a_run_names_what_it_used(tiny_run, tiny_score_run):
    used = set(tiny_run.read().origin.modules)
    assert {"peftbench.methods.lora", "peftbench.backbones.layouts.bert", "peftbench.training.loop"} <= used
    assert "peftbench.tasks.classification" in used and "peftbench.methods.prefix" not in used
    assert {"peftbench.methods.prefix", "peftbench.tasks.regression"} <= set(tiny_score_run.read().origin.modules)
    for record in (tiny_run, tiny_score_run):
        assert origin.is_current(record.read())

"""What a figure depends on besides its config: the digest of the code that decides a result."""

import shutil

import pytest

from peftbench.runs import origin


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's source whose files a test may change."""
    copy = tmp_path / "peftbench"
    shutil.copytree(origin.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(origin, "PACKAGE", copy)
    origin.code_digest.cache_clear()
    yield copy
    origin.code_digest.cache_clear()


def append(path):
    path.write_text(path.read_text() + "\n# changed\n")
    origin.code_digest.cache_clear()  # as a new process


def test_the_digest_is_the_same_for_the_same_code(package):
    assert origin.code_digest("lora") == origin.code_digest("lora")
    assert origin.code_digest("lora") != origin.code_digest("adapter")


@pytest.mark.parametrize(
    "file", ["training/loop.py", "tasks/read.py", "backbones/load.py", "methods/base.py", "preparation.py"]
)
def test_what_decides_a_result_changes_it(package, file):
    before = origin.code_digest("lora")
    append(package / file)
    assert origin.code_digest("lora") != before


@pytest.mark.parametrize("file", ["commands/runs.py", "records/record.py", "methods/prompt.py", "cli.py"])
def test_what_does_not_leaves_it(package, file):
    before = origin.code_digest("lora")
    append(package / file)
    assert origin.code_digest("lora") == before


def test_a_method_that_builds_on_another_changes_with_it(package):
    lora = package / "methods" / "lora.py"
    lora.write_text("from peftbench.methods.prompt import PromptConfig\n" + lora.read_text())
    before = origin.code_digest("lora")
    append(package / "methods" / "prompt.py")
    assert origin.code_digest("lora") != before


def test_what_is_edited_while_a_process_runs_changes_nothing_in_it(package):
    before = origin.code_digest("lora")
    loop = package / "training" / "loop.py"
    loop.write_text(loop.read_text() + "\n# changed\n")
    assert origin.code_digest("lora") == before

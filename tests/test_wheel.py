"""The wheel holds the package and every config file, and the package list in pyproject.toml is complete."""

import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "peftbench"
    subprocess.run(["git", "clone", "-q", ROOT, source], check=True)  # build/ stays out of the working tree
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def _tracked(folder: str, ending: str) -> set[str]:
    command = ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", "HEAD", folder]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.splitlines() if name.endswith(ending)}


def test_every_config_is_shipped(names):
    configs = _tracked("conf", ".yaml")
    assert len(configs) > 20
    assert {f"peftbench/{name}" for name in configs} == {n for n in names if n.endswith(".yaml")}


def test_every_module_is_shipped(names):
    modules = _tracked("peftbench", ".py") | _tracked("hydra_plugins", ".py") | {"peftbench/conf/__init__.py"}
    assert set.union(*(_tracked("peftbench", ending) for ending in (".css", ".js", ".json"))) <= names
    assert modules == {n for n in names if n.endswith(".py")}

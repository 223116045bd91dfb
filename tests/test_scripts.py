"""The scripts start, and end with a user's mistake as commands do."""

import importlib

import pytest
from conftest import ROOT

from peftbench.errors import PeftbenchError, UserError
from peftbench.terminal import run_script

SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))

SHARED = ("peers", "statistics_page", "training_units")  # what several scripts use


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_imported(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")  # as Python does for a script
    module = importlib.import_module(f"scripts.{name}")
    assert module.__doc__ and (hasattr(module, "main") or name in SHARED)


@pytest.mark.parametrize("error, code", [(UserError("no such\ntask"), 2), (PeftbenchError("no such\ntask"), 1)])
def test_an_error_is_one_line_and_its_exit_code(error, code, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run_script(main)
    assert ended.value.code == code and capsys.readouterr().err == "peftbench: no such task\n"


def test_lab_tables_refuses_an_unknown_table_before_training(monkeypatch, capsys):
    lab_tables = importlib.import_module("scripts.lab_tables")
    monkeypatch.setattr("sys.argv", ["lab_tables.py", "--only", "family,nosuch", "task=mrpc,rte"])
    with pytest.raises(SystemExit) as ended:
        run_script(lab_tables.main)
    assert ended.value.code == 2 and "table=nosuch: there is no such table" in capsys.readouterr().err

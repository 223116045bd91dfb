"""What is said of a run's data and of its method, and how often."""

from types import SimpleNamespace

import pytest

from peftbench.methods.lora import Lora
from peftbench.runs import report


class Hidden(list):
    """A split whose labels are hidden."""

    labels = None


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(report, "_reported", set())
    monkeypatch.setattr(report, "remarked", set())


def test_data_are_described_once_and_each_method_s_remarks_too(capsys):
    task = SimpleNamespace(checksum="a", splits={"train": Hidden([1])})
    for remarks in (["of a method"], ["of a method", "of another"]):
        report.report_data(task, ["of the data"])
        report.report_remarks(remarks)
    told = capsys.readouterr()
    assert told.err.splitlines() == [f"warning: {text}" for text in ("of the data", "of a method", "of another")]
    assert told.out.count("1 examples") == 1


def test_a_run_whose_data_are_described_elsewhere_says_what_concerns_its_method(train_tiny, capsys, monkeypatch):
    monkeypatch.setenv(report.DATA_IS_DESCRIBED, "1")
    monkeypatch.setattr(Lora, "remarks", lambda self, sites: ["that is ours"])
    train_tiny("opinions", "method=lora", "seed=4", "trainer.epochs=1", "trainer.max_steps=1")
    assert capsys.readouterr().err == "warning: that is ours\n"

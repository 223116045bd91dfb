"""A sweep keeps the errors of its runs, and nothing that these runs held."""

import gc
import weakref
from pathlib import Path

import pytest
import torch

from peftbench.errors import PeftbenchError, UserError
from peftbench.sweeps import job


@pytest.fixture(autouse=True)
def announced(monkeypatch, tmp_path):
    monkeypatch.setattr(job, "_announce", lambda composed: (1, [f"output_dir={tmp_path}"]))
    monkeypatch.setattr(job, "resolve", lambda composed: None)


def test_an_error_that_is_kept_holds_no_tensor_of_its_run(monkeypatch):
    held = []

    def execute(config, overrides, only_stale):
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        try:
            activations.view(7)
        except RuntimeError as error:
            raise PeftbenchError("out of memory") from error

    released = []
    monkeypatch.setattr(job, "_execute", execute)
    monkeypatch.setattr("peftbench.training.devices.release_memory", lambda: released.append(gc.collect()))
    error = job.sweep_job(None)
    assert str(error) == "out of memory" and error.__traceback__ is None and error.__cause__ is None
    assert released and held[0]() is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ZeroDivisionError("oh no")])
def test_what_nobody_foresaw_is_the_failure_of_its_row(error, monkeypatch, tmp_path, capsys):
    def execute(config, overrides, only_stale):
        raise error

    monkeypatch.setattr(job, "_execute", execute)
    failure = job.sweep_job(None)
    assert isinstance(failure, PeftbenchError) and not isinstance(failure, UserError)
    assert str(error) in str(failure) and failure.__traceback__ is None
    assert len(capsys.readouterr().err.splitlines()) == 1
    log = Path(str(failure).rpartition("; log ")[2])
    assert log.parent == tmp_path and "Traceback" in log.read_text()


def test_what_one_run_says_of_its_method_the_next_process_does_not_repeat(monkeypatch):
    monkeypatch.setattr(job, "remarked", {"said before"})
    given = []

    def in_a_process(function, before, *arguments):
        given.append(set(before))
        return {*before, f"said by run {len(given)}"}

    monkeypatch.setattr(job, "run_in_process", in_a_process)
    assert job.separate_sweep_job(None) is None and job.separate_sweep_job(None) is None
    assert given == [{"said before"}, {"said before", "said by run 1"}]

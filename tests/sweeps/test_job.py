"""A sweep keeps the errors of its runs, and nothing that these runs held."""

import gc
import weakref

import torch

from peftbench.errors import PeftbenchError
from peftbench.sweeps import job


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
    monkeypatch.setattr(job, "_announce", lambda composed: (1, []))
    monkeypatch.setattr(job, "resolve", lambda composed: None)
    monkeypatch.setattr(job, "_execute", execute)
    monkeypatch.setattr("peftbench.training.devices.release_memory", lambda: released.append(gc.collect()))
    error = job.sweep_job(None)
    assert str(error) == "out of memory" and error.__traceback__ is None and error.__cause__ is None
    assert released and held[0]() is None

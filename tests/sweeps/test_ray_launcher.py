"""What the Ray launcher asks Ray for; Ray itself is in tests/cluster."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus

from peftbench.errors import UserError
from peftbench.sweeps.launch import launcher


@pytest.fixture
def asked(monkeypatch):
    """What `ray.remote` was asked for each job, by a Ray that runs nothing; `gpus` are the cluster's."""
    asked = SimpleNamespace(resources=[], gpus=0)

    def remote(**resources):
        asked.resources.append(resources)
        returned = JobReturn(status=JobStatus.COMPLETED)
        returned.return_value = None
        return lambda function: SimpleNamespace(remote=lambda job: returned)

    ray = ModuleType("ray")
    ray.is_initialized = lambda: True
    ray.cluster_resources = lambda: {"CPU": 4.0, **({"GPU": float(asked.gpus)} if asked.gpus else {})}
    ray.remote, ray.get = remote, lambda task: task
    ray.exceptions = ModuleType("ray.exceptions")
    ray.exceptions.RayError = RuntimeError
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    return asked


def _launch(tmp_path, *overrides, settings=()):
    with launcher(print, ["hydra/launcher=ray", f"output_dir={tmp_path}", *settings]) as launch:
        return launch([list(overrides)])


@pytest.mark.parametrize(
    ("gpus", "overrides", "settings", "asked_for"),
    [
        (0, [], [], 0),
        (2, [], [], 1),
        (2, ["device=cuda"], [], 1),
        (2, ["device=cpu"], [], 0),
        (2, [], ["hydra.launcher.remote.num_gpus=0.5"], 0.5),
        (2, [], ["hydra.launcher.remote.num_gpus=0"], 0),
    ],
)
def test_a_run_gets_a_gpu_where_there_is_one(asked, tmp_path, gpus, overrides, settings, asked_for):
    asked.gpus = gpus
    assert _launch(tmp_path, *overrides, settings=settings) == [None]
    assert [resources["num_gpus"] for resources in asked.resources] == [asked_for]


def test_a_run_cannot_name_its_gpu(asked, tmp_path):
    with pytest.raises(UserError, match="device=cuda:1: Ray gives each run a GPU of its own; write device=cuda"):
        _launch(tmp_path, "device=cuda:1")

"""What a run saves of its method gives, on another copy of the backbone, the answers of what was trained."""

import os

import pytest
import torch
from safetensors.torch import save_file
from tiny import headed, method_configs, tiny_batch, tiny_model

from peftbench.methods import METHODS, build
from peftbench.methods.bottleneck import BottleneckConfig
from peftbench.runs.adapter import load_adapter, read_tensors, save_adapter

CONFIGS = method_configs() | {
    f"{name}-one-layer": cls.config_class(reduction_factor=8, layers="1")
    for name, cls in METHODS.items()
    if issubclass(cls.config_class, BottleneckConfig) and "texts" in cls.modalities
}


def test_a_file_that_is_written_over_does_not_change_what_was_read(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    tensor = read_tensors(tmp_path)["a"]
    with path.open("r+b") as file:
        file.seek(-4000, os.SEEK_END)
        file.write(bytes(4000))
    assert torch.equal(tensor, torch.ones(1000))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_loaded_method_answers_as_the_trained_one(name, tmp_path):
    trained = headed(tiny_model("bert"))
    method = build(CONFIGS[name], trained.sites)
    with torch.no_grad():
        for parameter in (*method.parameters(), *trained.head.values()):
            parameter.add_(torch.randn_like(parameter) * 0.2)
        method.requires_grad_(False)
        method.attach(trained.sites)
        expected = trained.model(**tiny_batch()).logits
        save_adapter(tmp_path, method, trained, {}, {}, [])
        fresh = headed(tiny_model("bert"))
        loaded = load_adapter(tmp_path, fresh)
        found = fresh.model(**tiny_batch()).logits
    tolerance = 0 if loaded.config == method.config else 1e-5  # a network that was folded away rounds otherwise
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)

"""Choosing a device, and telling an out-of-memory error from others."""

import pytest
import torch

from peftbench.errors import UserError
from peftbench.training.devices import choose_device, is_out_of_memory


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "mps", "meta"])
def test_unknown_device(name):
    with pytest.raises(UserError, match="choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_one():
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no CUDA device: use device=auto"):
        choose_device("cuda")


def test_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))

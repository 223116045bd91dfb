"""On a CUDA device: the scores of the CPU in fp32, bf16 by default, going on from a checkpoint, device memory."""

import pytest
import torch
from tiny import method_configs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("method", sorted(method_configs()))
def test_every_method_trains_in_bf16(train_tiny, tiny_method, method):
    result = train_tiny("opinions", *tiny_method(method), "device=cuda", "trainer.precision=auto", "seed=21").read()
    assert result.environment.precision == "bf16" and result.memory.device_peak > 0
    assert result.metrics["validation"]["loss"] < 1


def test_fp32_agrees_with_the_cpu(train_tiny):
    changes = ("method=lora", "model.dropout=0.0", "trainer.precision=fp32", "seed=22")
    cpu = train_tiny("opinions", *changes, "experiment=cpu", "device=cpu").read()
    cuda = train_tiny("opinions", *changes, "experiment=cuda", "device=cuda").read()
    assert cuda.metrics["validation"]["loss"] == pytest.approx(cpu.metrics["validation"]["loss"], rel=1e-2)


def test_dropout_goes_on_from_a_checkpoint():
    from peftbench.training.checkpoint import random_state, set_random_state

    device, ones = torch.device("cuda"), torch.ones(1000, device="cuda")
    state = random_state(device)
    first = torch.nn.functional.dropout(ones, 0.5)
    assert not torch.equal(torch.nn.functional.dropout(ones, 0.5), first)
    set_random_state(state, device)
    assert torch.equal(torch.nn.functional.dropout(ones, 0.5), first)


def test_out_of_memory_is_recognised():
    from peftbench.training.devices import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)

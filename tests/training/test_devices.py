"""Choosing a device and a precision, and telling an out-of-memory error from others."""

import errno
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from peftbench.errors import UserError
from peftbench.out_of_memory import is_out_of_memory
from peftbench.training import devices
from peftbench.training.checkpoint import random_state, set_random_state
from peftbench.training.devices import choose_device, resolve_precision, use_device, use_threads

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "mps", "meta"])
def test_unknown_device(name):
    with pytest.raises(UserError, match="choose auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_one():
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="no CUDA device: use device=auto"):
        choose_device("cuda")


@pytest.fixture
def torch_threads():
    """Give torch back the threads it had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("torch_threads")
def test_no_number_of_threads_is_the_default_whatever_was_set_before(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    use_threads(1)
    assert torch.get_num_threads() == 1
    use_threads(None)
    assert torch.get_num_threads() == 2
    with pytest.raises(UserError, match=r"threads=5 is more than this machine's 4 cores"):
        use_threads(5)


def test_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


class FakeCuda:
    """Stands in for two CUDA devices, with these capabilities, and notes what was set."""

    def __init__(self, monkeypatch, capabilities=((9, 0), (9, 0))):
        self.current, self.products, self.plans_attention = None, None, None
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "device", self._as_current)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.current or 0)
        majors = [SimpleNamespace(major=major) for major, _ in capabilities]
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: majors[index])
        monkeypatch.setattr(torch.cuda, "set_device", lambda index: setattr(self, "current", index))
        monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda name: setattr(self, "products", name))
        monkeypatch.setattr(
            torch.backends.cuda, "enable_cudnn_sdp", lambda enabled: setattr(self, "plans_attention", enabled)
        )

    @contextmanager
    def _as_current(self, index):
        before, self.current = self.current, index
        yield
        self.current = before


@pytest.mark.parametrize(("name", "index"), [("cuda:1", 1), ("cuda", 0), ("auto", 0)])
def test_the_device_used_is_the_current_one_multiplies_in_tf32_and_plans_no_attention(name, index, monkeypatch):
    fake = FakeCuda(monkeypatch)
    assert use_device(name) == torch.device("cuda", index)
    assert fake.current == index and fake.products == "high" and fake.plans_attention is False


def test_the_cpu_keeps_its_settings(monkeypatch):
    fake = FakeCuda(monkeypatch)
    assert use_device("cpu") == torch.device("cpu")
    assert fake.current is None and fake.products is None and fake.plans_attention is None


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "bf16"), ((12, 1), "bf16"), ((7, 5), "fp32")])
def test_auto_takes_bf16_where_the_very_device_computes_in_it(capability, precision, monkeypatch):
    FakeCuda(monkeypatch, [(8, 6) if precision == "fp32" else (7, 5), capability])
    assert resolve_precision("auto", torch.device("cuda", 1)) == precision
    assert resolve_precision("auto", torch.device("cuda")) != precision, "the first one"
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert resolve_precision("auto", torch.device("cuda", 1)) == "bf16"


@pytest.mark.parametrize("faster", [True, False])
def test_auto_takes_bf16_on_a_cpu_where_it_pays(faster, monkeypatch):
    monkeypatch.setattr(devices, "cpu_is_faster_in_bf16", lambda: faster)
    assert resolve_precision("auto", CPU) == ("bf16" if faster else "fp32")
    assert resolve_precision("fp32", CPU) == "fp32" and resolve_precision("bf16", CPU) == "bf16"


def test_a_processor_without_bf16_is_not_tried(monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda: False)
    monkeypatch.setattr(devices, "_fp32_product", None)
    assert not devices.cpu_is_faster_in_bf16.__wrapped__()


@pytest.mark.parametrize(("slowdown", "faster"), [(0.0, False), (0.05, True)])
def test_the_trial_decides_by_the_faster_product(slowdown, faster, monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda: True)
    monkeypatch.setattr(devices, "_fp32_product", lambda square: slowdown and time.sleep(slowdown))
    threads = torch.get_num_threads()
    assert devices.cpu_is_faster_in_bf16.__wrapped__() is faster
    assert torch.get_num_threads() == threads


def test_under_torchrun_each_process_takes_its_gpu(monkeypatch):
    fake = FakeCuda(monkeypatch)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert use_device("auto") == torch.device("cuda", 1) and fake.current == 1
    assert use_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="more processes than the 2 GPUs here: set --nproc-per-node=2"):
        use_device("auto")


def test_without_torchrun_nobody_else_says_which_gpu_is_taken(monkeypatch):
    fake = FakeCuda(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert use_device("auto") == torch.device("cuda", 0) and fake.current == 0


def test_the_random_state_is_that_of_the_device_in_use_wherever_it_is_restored(monkeypatch):
    states = {torch.device("cuda", 0): "zero", torch.device("cuda", 1): "one"}
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.__setitem__(device, state))
    saved = random_state(torch.device("cuda", 1))
    set_random_state(saved, torch.device("cuda", 0))  # from two GPUs to one
    assert states[torch.device("cuda", 0)] == "one"
    set_random_state(saved, CPU)
    set_random_state(random_state(CPU), torch.device("cuda", 0))
    assert states[torch.device("cuda", 0)] == "one" and "cuda" not in random_state(CPU)

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from peftbench.measuring.memory import peak_memory, reset_peak

CPU = torch.device("cpu")


def test_cpu_has_no_device_peak():
    reset_peak(CPU)
    peak = peak_memory(CPU)
    assert peak["device_peak"] is None
    assert peak["host_peak"] > 50 * 2**20, "bytes: a process with torch takes more than 50 MiB"


@pytest.mark.long
def test_host_peak_holds_what_was_freed():
    """300 MB that come and go raise the peak by about as much, in a process that starts from a low one."""
    script = """
import torch
from peftbench.measuring.memory import peak_memory
cpu = torch.device("cpu")
before = peak_memory(cpu)["host_peak"]
block = torch.ones(300_000_000, dtype=torch.uint8)
del block
print(peak_memory(cpu)["host_peak"] - before)
"""
    ballast = bytearray(900_000_000)  # what a parent holds is not the child's
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    del ballast
    assert 250e6 < int(done.stdout) < 350e6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its peak")
def test_host_peak_starts_anew_at_a_reset():
    block = torch.ones(600_000_000, dtype=torch.uint8)
    high = peak_memory(CPU)["host_peak"]
    del block
    reset_peak(CPU)
    assert peak_memory(CPU)["host_peak"] < high - 400e6


@pytest.mark.gpu
def test_device_peak_counts_tensors_since_the_reset():
    device = torch.device("cuda")
    torch.empty(100_000_000, dtype=torch.uint8, device=device)
    reset_peak(device)
    held = torch.cuda.memory_allocated(device)  # by what ran in this process before
    block = torch.empty(10_000_000, dtype=torch.uint8, device=device)
    del block
    assert 10_000_000 <= peak_memory(device)["device_peak"] - held < 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="it is read from /proc there")
@pytest.mark.parametrize("status", ["VmSize:\t 100 kB\nThreads:\t1\n", ""])
def test_a_system_that_does_not_tell_the_peak_fails_nothing(monkeypatch, status):
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: status)
    assert peak_memory(CPU) == {"device_peak": None, "host_peak": None}

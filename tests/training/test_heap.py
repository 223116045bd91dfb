"""Freed memory is kept: taking it again costs no page faults."""

import platform
from subprocess import PIPE

import forked
import pytest

_FAULTS = """
import resource
import torch
from peftbench.training.heap import give_back_freed_memory, keep_freed_memory
{keep}
def fill():
    return [torch.empty(2**23, dtype=torch.uint8).fill_(1) for _ in range(20)]
fill()
{between}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_taken_again_without_page_faults():
    def faults(keep: str, between: str = "") -> int:
        code = _FAULTS.format(keep=keep, between=between)
        return int(forked.run(["-c", code], stdout=PIPE, text=True, check=True).stdout)

    by_itself = faults("")
    assert faults("keep_freed_memory()") < by_itself / 2
    assert faults("keep_freed_memory()", "give_back_freed_memory()") > by_itself / 2

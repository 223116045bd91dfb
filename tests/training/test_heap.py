"""Freed memory is kept: taking it again costs no page faults."""

import os
import platform
import resource
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import torch
from peftbench.training.heap import give_back_freed_memory, keep_freed_memory
keep_freed_memory()
def fill():
    return [torch.empty(2**23, dtype=torch.uint8).fill_(1) for _ in range(20)]
def faults():
    {between}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# the fewest of several: small objects may split what one filling freed
fill()
print(min(faults() for _ in range(6)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_taken_again_without_page_faults():
    def faults(between: str) -> int:
        code = _FAULTS.format(between=between)
        small_pages = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0"}
        return int(subprocess.check_output([sys.executable, "-c", code], env=small_pages, text=True))

    pages = 20 * 2**23 // resource.getpagesize()
    assert faults("pass") < pages / 10
    assert faults("give_back_freed_memory()") > pages / 2

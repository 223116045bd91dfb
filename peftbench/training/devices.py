"""Which device and precision a run uses, and giving back memory."""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch

from peftbench.backbones.economy.cpu import CheapOnCpu
from peftbench.config.schema import check_threads
from peftbench.errors import UserError
from peftbench.processor import has_bf16
from peftbench.training.heap import give_back_freed_memory
from peftbench.training.torchrun import local_rank

# bf16 must beat fp32 by this much at one product: a run is more than products
_WORTHWHILE = 1.25
_PROBE_SIZE = 320
_PROBE_ROUNDS = 9
_THREADS = torch.get_num_threads()


def default_threads() -> int:
    """Return how many threads $OMP_NUM_THREADS asks for, heeded behind torch's import too, or else torch's choice."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else _THREADS


def use_threads(threads: int | None) -> None:
    """Let torch compute on so many threads; None: as many as `default_threads` says, whatever an earlier run had.

    Raises UserError where the machine has fewer cores.
    """
    check_threads(threads)
    torch.set_num_threads(threads or default_threads())


def choose_device(name: str) -> torch.device:
    """Return the device called `name`: auto (CUDA where there is one), cpu, cuda or cuda:N.

    Raises UserError for another name and for a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name} is unknown: choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name} is not supported: choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            raise UserError(f"device={name}, but this machine shows no CUDA device: use device=auto or device=cpu")
        if device.index is not None and device.index >= count:
            raise UserError(f"device={name}, but there are only cuda:0 … cuda:{count - 1}")
    return device


def use_device(name: str) -> torch.device:
    """Choose a device and make it the one that this process computes on, the same way for every command.

    On CUDA it becomes the current device, so that nothing lands on cuda:0 unasked, fp32 products use TF32, and
    attention leaves cuDNN aside.
    """
    device = choose_device(name)
    if device.type == "cuda":
        index = _gpu(device)
        torch.cuda.set_device(index)
        torch.set_float32_matmul_precision("high")
        # cuDNN plans anew for every shape of batch, and texts vary in length: half of a short run's time on an H100
        torch.backends.cuda.enable_cudnn_sdp(False)
        return torch.device("cuda", index)
    return device


def _gpu(device: torch.device) -> int:
    """Return the number of a CUDA device; of one without a number, that of this process' GPU.

    Raises UserError where torchrun began more processes on this machine than it has GPUs.
    """
    if device.index is not None:
        return device.index
    index, count = local_rank(), torch.cuda.device_count()
    if index >= count:
        raise UserError(f"torchrun began more processes than the {count} GPUs here: set --nproc-per-node={count}")
    return index


def resolve_precision(name: str, device: torch.device) -> str:
    """Return what `trainer.precision` comes to on a device: `fp32` or `bf16`.

    auto is bf16 on a CUDA device that computes in it, and on a CPU where its products are really faster.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(_gpu(device)):  # it asks the current one
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if cpu_is_faster_in_bf16() else "fp32"


def autocasting(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context that a forward pass runs in: autocast to bfloat16 for bf16, none for fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def padding_multiple(precision: str, device: torch.device) -> int:
    """Return the multiple that sequences are padded up to.

    In bf16 on a CPU oneDNN makes its kernels anew for each length, at several milliseconds; eight lengths share theirs.
    """
    return 8 if precision == "bf16" and device.type == "cpu" else 1


@cache
def cpu_is_faster_in_bf16() -> bool:
    """Tell, from the processor's features and by a trial of a few milliseconds, whether bf16 pays on this CPU.

    The trial runs on one thread and keeps each side's fastest round, so that other work on the machine does not
    decide it.
    """
    if not has_bf16() or not torch.backends.mkldnn.is_available():
        return False
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ones = {dtype: torch.ones(_PROBE_SIZE, _PROBE_SIZE, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
        products: dict[torch.dtype, Callable[[], torch.Tensor]] = {
            torch.float32: lambda: _fp32_product(ones[torch.float32]),
            torch.bfloat16: lambda: ones[torch.bfloat16] @ ones[torch.bfloat16],
        }
        fastest = dict.fromkeys(products, float("inf"))
        for _ in range(_PROBE_ROUNDS):
            for dtype, product in products.items():
                start = time.perf_counter()
                product()
                fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return fastest[torch.float32] > _WORTHWHILE * fastest[torch.bfloat16]


def _fp32_product(square: torch.Tensor) -> torch.Tensor:
    """Return square @ squareᵀ, float32, computed as in training."""
    with CheapOnCpu():
        return torch.nn.functional.linear(square, square)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside the block fp32 products are exact to fp32, also on a GPU, where `use_device` lets them round to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def release_memory() -> None:
    """Give back what an earlier run of this process left: unreachable tensors, and CUDA's kept blocks."""
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()

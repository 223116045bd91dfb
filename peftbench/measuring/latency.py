"""Inference latency of an adapted model against its bare backbone, by paired and interleaved timing.

Each round times every variant once, on the same input and in rotating order, so that drift of the machine
hits all alike; a ratio is the median over rounds of the paired ratios. The backbone is in it twice: the ratio
of its two series (A/A) is what a difference must exceed to mean anything. What is timed is the model alone,
from token ids or pixels to logits, eager, without padding or mask; tokenizer and transfers are left out.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from peftbench.backbones.economy.frozen import Casts, frozen_in_bf16
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.inputs import Size, positions_of, random_inputs, small_size
from peftbench.config.schema import MeasureConfig
from peftbench.errors import UserError
from peftbench.interruption import check_interrupted
from peftbench.methods.base import Method
from peftbench.training.devices import autocasting, full_precision

LEAST_ROUNDS = 5
LEAST_FOR_P99 = 1000
# a call shorter than this, in seconds, starts with what the variant before it left in the caches
_SHORT = 0.05
_RESAMPLES = 1000


def measure_latency(
    method: Method,
    backbone: HeadedBackbone,
    config: MeasureConfig,
    precision: str = "fp32",
    sizes: Sequence[Size] | None = None,
) -> dict[str, Any]:
    """Time the adapted model against the bare backbone at every batch size of `config` and every size of an example.

    Args:
        method: attached to the backbone or not, merged or not; it is left as it was found.
        backbone: with weights; nothing else may be attached to it.
        config: `seconds` is the time for one setting, warm-up apart; `LEAST_ROUNDS` rounds are the least.
        precision: that the run was scored in: fp32, or bf16, in which the frozen weights are held then.
        sizes: of an example, tokens or (height, width); None: the lengths of `config`.

    Returns:
        settings: one entry for each batch and length the model can take beside `method.extra_positions`:
            base_ms, method_ms, merged_ms: {median, p90, p99 (from 1,000 calls on), n} in milliseconds;
            ratio, ratio_low, ratio_high: method / base with its 95 % interval; merged_ratio… likewise;
            noise, noise_low, noise_high: base / base;
            base_throughput, method_throughput: examples/s at the median latency.
        merge_difference: largest absolute difference of merged and unmerged logits, in fp32; None where the method
            cannot be merged.
        device, precision, attention, threads, compile: under which conditions.
    """
    sites = backbone.sites
    base: Any = sites.base
    sizes = fitting_sizes(config.lengths if sizes is None else sizes, method, backbone)
    with _bare_and_evaluating(method, backbone):
        settings = [
            _measure_setting(method, backbone, batch, size, config.seconds, precision)
            for batch in config.batches
            for size in sizes
        ]
        return {
            "settings": settings,
            "merge_difference": _merge_difference(method, backbone) if method.mergeable else None,
            "device": torch.cuda.get_device_name(sites.device) if sites.device.type == "cuda" else "cpu",
            "precision": precision,
            "attention": base.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "compile": False,
        }


def fitting_sizes(sizes: Sequence[Size], method: Method, backbone: HeadedBackbone) -> list[Size]:
    """Return the sizes, tokens or (height, width), that the model takes; raises UserError where it takes none."""
    longest = backbone.sites.positions - method.extra_positions
    fitting = [size for size in sizes if not isinstance(size, int) or size <= longest]
    if not fitting:
        raise UserError(f"measure.lengths={list(sizes)}: the model takes at most {longest} tokens: give a shorter one")
    return fitting


def compare(
    functions: dict[str, Callable[[], Any]],
    seconds: float,
    least: int,
    synchronise: Callable[[], Any],
    before: Callable[[str], Any] | None = None,
) -> dict[str, list[float]]:
    """Time functions interleaved, each once a round, after a warm-up that is thrown away.

    Args:
        functions: what to time, by name.
        seconds: time for all rounds together, the warm-up apart.
        least: number of rounds taken however long they last.
        synchronise: waits until the device has finished; called before the clock starts and before it stops.
        before: called with a function's name before it is timed, e.g. to attach a method; not timed itself.

    Returns the seconds of each call by name; index i of every list is round i.
    """
    prepare = before or (lambda name: None)
    names = list(functions)
    warm_up = []
    for name in names:
        prepare(name)
        warm_up.append(_warm_up(functions[name], seconds / 10 / len(names), synchronise))
    short = min(warm_up) < _SHORT
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < least or time.perf_counter() < end:
            check_interrupted()
            first = rounds % len(names)
            for name in names[first:] + names[:first]:
                prepare(name)
                if short:
                    functions[name]()
                times[name].append(_time(functions[name], synchronise))
            rounds += 1
    finally:
        if collecting:
            gc.enable()
    return times


def ratio_with_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the paired ratios a[i] / b[i] and its 95 % bootstrap interval (low, high)."""
    ratios = np.asarray(a) / np.asarray(b)
    drawn = np.random.default_rng(0).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def synchroniser(device: torch.device) -> Callable[[], None]:
    """Return the function that waits until the device has finished (nothing to wait for on a CPU)."""
    if device.type == "cpu":
        return lambda: None
    return lambda: torch.accelerator.synchronize(device)


def _warm_up(function: Callable[[], Any], seconds: float, synchronise: Callable[[], Any]) -> float:
    """Call a function until `seconds` are over, at least once; return how long the last call took."""
    end = time.perf_counter() + seconds
    while True:
        last = _time(function, synchronise)
        if time.perf_counter() >= end:
            return last


def _time(function: Callable[[], Any], synchronise: Callable[[], Any]) -> float:
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - start


def _measure_setting(
    method: Method, backbone: HeadedBackbone, batch: int, size: Size, seconds: float, precision: str
) -> dict[str, Any]:
    device = backbone.sites.device
    inputs = random_inputs(backbone.sites, batch, size)
    variants = ["base", "method", "base again", *(["merged"] if method.mergeable else [])]
    kept: Casts = WeakTensorKeyDictionary()  # each time it is merged, a method brings new weights

    def logits() -> torch.Tensor:
        with autocasting(precision, device):
            return _logits(backbone, inputs)

    with ExitStack() as casts:

        def prepare(variant: str) -> None:
            casts.close()
            _switch(method, backbone, variant)
            if precision == "bf16":
                casts.enter_context(frozen_in_bf16(backbone.model, kept))

        times = compare(dict.fromkeys(variants, logits), seconds, LEAST_ROUNDS, synchroniser(device), prepare)
    _switch(method, backbone, "base")
    result: dict[str, Any] = {
        "batch": batch,
        "length": positions_of(backbone.sites, size),
        "base_ms": _summary(times["base"]),
        "method_ms": _summary(times["method"]),
        "base_throughput": batch / float(np.median(times["base"])),
        "method_throughput": batch / float(np.median(times["method"])),
        **_named("ratio", times["method"], times["base"]),
        **_named("noise", times["base again"], times["base"]),
    }
    if method.mergeable:
        result["merged_ms"] = _summary(times["merged"])
        result.update(_named("merged_ratio", times["merged"], times["base"]))
    return result


def _named(name: str, a: list[float], b: list[float]) -> dict[str, float]:
    ratio, low, high = ratio_with_interval(a, b)
    return {name: ratio, f"{name}_low": low, f"{name}_high": high}


def _summary(seconds: list[float]) -> dict[str, float]:
    milliseconds = np.asarray(seconds) * 1000
    summary = {"median": float(np.median(milliseconds)), "p90": float(np.quantile(milliseconds, 0.9))}
    if len(seconds) >= LEAST_FOR_P99:
        summary["p99"] = float(np.quantile(milliseconds, 0.99))
    return {**summary, "n": len(seconds)}


@full_precision()
def _merge_difference(method: Method, backbone: HeadedBackbone) -> float:
    sites = backbone.sites
    inputs = random_inputs(sites, 8, small_size(sites, min(32, sites.positions)))
    logits = []
    for variant in ("method", "merged"):
        _switch(method, backbone, variant)
        logits.append(_logits(backbone, inputs))
    _switch(method, backbone, "base")
    return float((logits[0] - logits[1]).abs().max())


def _switch(method: Method, backbone: HeadedBackbone, variant: str) -> None:
    """Bring the backbone into the state that `variant` names."""
    if method.attached:
        method.detach()
    if variant in ("method", "merged"):
        method.attach(backbone.sites)
    if variant == "merged":
        method.merge()


@contextmanager
def _bare_and_evaluating(method: Method, backbone: HeadedBackbone) -> Iterator[None]:
    """Detach the method and switch to evaluation mode inside the block; restore both behind it."""
    found = "merged" if method.merged else "method" if method.attached else "base"
    modes = [(module, module.training) for part in (backbone.model, method) for module in part.modules()]
    backbone.model.eval()
    method.eval()
    _switch(method, backbone, "base")
    try:
        yield
    finally:
        _switch(method, backbone, found)
        for module, training in modes:
            module.training = training


@torch.inference_mode()
def _logits(backbone: HeadedBackbone, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return backbone.model(**inputs).logits

"""Clocks and meters: time of contestants that take turns, peak memory of one of them."""

import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

# Without these, glibc keeps freed tensors for later, more or less as chance has it. With them, every tensor
# above 64 KiB goes back to the system when it is freed, and measuring a step again gives the same number.
MEMORY_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
}


def synchronize(device: str) -> None:
    """Waits for the device; a CPU has always finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def autocast(device: str, dtype: str) -> AbstractContextManager:
    """Mixed precision for training in bfloat16, nothing for float32."""
    return torch.autocast(device, torch.bfloat16) if dtype == "bfloat16" else nullcontext()


def seconds_per_call(run: Callable[[], object], device: str, min_seconds: float) -> float:
    """Mean time of `run`, called until `min_seconds` have passed, at least once."""
    synchronize(device)
    start, calls, elapsed = time.perf_counter(), 0, 0.0
    while calls == 0 or elapsed < min_seconds:
        run()
        synchronize(device)
        calls += 1
        elapsed = time.perf_counter() - start
    return elapsed / calls


def take_turns(clocks: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each clock shows in each of `repeats` rounds A B C, A B C, ..., after a round that does not count.

    Whatever slows the machine for a while then slows all of them, and the ratio within a round stays.
    """
    rounds = {name: [] for name in clocks}
    gc.collect()
    # What is there already need not be searched for garbage before each of the times below.
    gc.freeze()
    for _ in range(1 + repeats):
        for name, clock in clocks.items():
            gc.collect()
            rounds[name].append(clock())
    gc.unfreeze()
    return {name: seconds[1:] for name, seconds in rounds.items()}


def measure_peak_memory(prepare: Callable[[], Callable[[], object]], device: str) -> int:
    """Bytes that the second call of what `prepare` returns needs at its peak, beyond those before `prepare`.

    So what `prepare` and the first call leave behind counts: parameters, optimizer state, caches of kernels.
    """
    gc.collect()
    before = _current_bytes(device)
    run = prepare()
    run()
    gc.collect()
    _reset_peak(device)
    run()
    return _peak_bytes(device) - before


def _current_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return _status_bytes("VmRSS") if sys.platform == "linux" else _peak_bytes(device)


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def memory_environment() -> dict[str, str]:
    """The environment of a process whose memory is measured."""
    return {**os.environ, **MEMORY_ENVIRONMENT}

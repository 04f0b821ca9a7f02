"""Peak memory of a task, in a process of its own."""

import gc
import os
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import torch

# Without these, glibc keeps freed tensors for later, more or less as chance has it. With them, every tensor
# above 64 KiB goes back to the system when it is freed, and measuring a step again gives the same number.
MALLOC_SETTINGS = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
}


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a process where nothing that ran before is still in memory."""
    with (
        mock.patch.dict(os.environ, MALLOC_SETTINGS),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        return pool.submit(function, *args).result()


def measure_peak_memory(prepare: Callable[[], Callable[[], object]], device: str) -> int:
    """Bytes that the second call of what `prepare` returns needs at its peak, beyond those before `prepare`.

    So what `prepare` and the first call leave behind counts: parameters, optimizer state, caches of kernels.
    """
    gc.collect()
    before = torch.cuda.memory_allocated() if device == "cuda" else _resident_bytes("VmRSS")
    run = prepare()
    run()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    run()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident_bytes("VmHWM")
    return peak - before


def _resident_bytes(field: str) -> int:
    """A line of Linux's `/proc/self/status`; elsewhere the largest resident memory so far."""
    if sys.platform != "linux":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

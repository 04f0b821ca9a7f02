"""Measures cells: contestants that take turns, their operations, and their memory."""

import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch

from mosaic_lab.benchmark.cells import Cell, make_tokens
from mosaic_lab.benchmark.contestants import Contestant, synchronize
from mosaic_lab.benchmark.memory import in_fresh_process, measure_peak_memory
from mosaic_lab.benchmark.options import BenchmarkArguments
from mosaic_lab.core.devices import find_device

REHEARSAL_TOKENS = 8


def prepare_machine(options: BenchmarkArguments) -> None:
    """Sets the number of threads.

    Raises:
        InputError: if there is no such device.
    """
    find_device(options.device)
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)


def measure_cell(cell: Cell, options: BenchmarkArguments) -> dict[str, dict[str, Any]]:
    """By contestant: `operations`, `bytes`, or `seconds` of each round; `first_seconds` of compiled steps."""
    if cell.measure == "memory":
        peaks = {name: in_fresh_process(peak_memory, name, cell, options) for name in cell.contestants}
        return {"bytes": peaks}
    tokens = make_tokens(cell, options)
    contestants = {name: Contestant(name, cell, options) for name in cell.contestants}
    if cell.measure == "operations":
        return {"operations": {name: one.count_operations(tokens) for name, one in contestants.items()}}
    runs = {name: partial(one.run, tokens) for name, one in contestants.items()}
    measured = {}
    if cell.execution in ("fullgraph", "regional"):
        measured["first_seconds"] = {name: time_first_call(run, options.device) for name, run in runs.items()}
    if cell.task != "decode":
        # Which reads the clock itself, at each token.
        clock = partial(seconds_per_call, device=options.device, min_seconds=options.min_seconds)
        runs = {name: partial(clock, run) for name, run in runs.items()}
    return {"seconds": take_turns(runs, options.repeats), **measured}


def peak_memory(name: str, cell: Cell, options: BenchmarkArguments) -> int:
    """Peak memory in bytes of the contestant's second run of the cell's task, in this process."""
    prepare_machine(options)

    def prepare(cell):
        return partial(Contestant(name, cell, options).run, make_tokens(cell, options))

    # Loads the code that the task needs, which would count as memory of the process.
    prepare(replace(cell, context=REHEARSAL_TOKENS, batch=1))()
    return measure_peak_memory(partial(prepare, cell), options.device)


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


def time_first_call(run: Callable[[], object], device: str) -> float:
    """Seconds of a call that compiles, without what earlier compilations left on the disk."""
    # Loads the compiler itself.
    torch.compile(torch.neg)(torch.ones(1, device=device))
    torch.compiler.reset()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder),
    ):
        return seconds_per_call(run, device, 0)


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

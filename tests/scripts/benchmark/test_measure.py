import sys
from types import SimpleNamespace

import pytest
import torch

from mosaic_lab.benchmark import measure
from mosaic_lab.benchmark.hardware import describe_hardware
from mosaic_lab.benchmark.measure import seconds_per_call, take_turns
from mosaic_lab.benchmark.memory import measure_peak_memory
from mosaic_lab.benchmark.operations import count_operations
from mosaic_lab.benchmark.report import compute_ratios


def test_contestants_take_turns_and_the_first_round_does_not_count():
    called = []

    def clock(name):
        called.append(name)
        return len(called)

    seconds = take_turns({"a": lambda: clock("a"), "b": lambda: clock("b")}, repeats=2)
    assert called == ["a", "b"] * 3
    assert seconds == {"a": [3, 5], "b": [4, 6]}


def test_short_runs_are_repeated(monkeypatch):
    now = [0.0]

    def run():
        now[0] += 0.25

    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert seconds_per_call(run, "cpu", 0.9) == 0.25 and now == [1.0]
    assert seconds_per_call(run, "cpu", 0.0) == 0.25 and now == [1.25]


def test_ratio_is_the_median_of_the_rounds():
    row = {"measure": "time", "seconds": {"mosaic": [1.0, 9.0, 2.0], "gpt2": [2.0, 3.0, 2.0]}}
    assert compute_ratios(row) == {"mosaic / GPT-2": 1.0}
    row = {"measure": "memory", "bytes": {"mosaic": 3, "gpt2": 2, "plain": 6}}
    assert compute_ratios(row) == {"mosaic / GPT-2": 1.5, "plain / mosaic": 2.0}
    row = {"measure": "operations", "operations": {"mosaic": 6, "llama": 2, "mosaic_own_loss": 4}}
    assert compute_ratios(row) == {"mosaic / Llama": 3.0, "own loss / Llama": 2.0}


def test_operations_are_counted_with_what_they_are_made_of():
    x = torch.ones(2, 3, requires_grad=True)
    assert count_operations(lambda: x + x) == 1
    assert count_operations(lambda: x.view(6).neg()) == 2
    # `aten::matmul` in front of it.
    assert count_operations(lambda: x @ x.T) == 1 + count_operations(lambda: x.mm(x.T))
    forward = count_operations(lambda: (x * x).sum())
    assert count_operations(lambda: (x * x).sum().backward()) > 2 * forward


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak of a process cannot be reset")
def test_peak_memory_is_that_of_the_second_run():
    megabytes = 2**20 // 4

    def prepare():
        kept = torch.ones(100 * megabytes)
        sizes = iter((400, 200))
        return lambda: (torch.ones(next(sizes) * megabytes), kept)

    assert measure_peak_memory(prepare, "cpu") == pytest.approx(300 * 2**20, rel=0.05)


def test_hardware_is_named_for_a_file():
    hardware = describe_hardware("cpu")
    assert hardware["slug"].endswith("-cores") and hardware["slug"].replace("-", "").isalnum()
    assert hardware["threads"] == torch.get_num_threads()

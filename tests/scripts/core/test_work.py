import json
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays, write_json
from mosaic_lab.core.work import Run, gather, leave_group, load_gathered, read_arrays, work_through

RUNS = [Run(f"run{number}", {"number": number, "sizes": (1, 2)}) for number in range(6)]


def square(run, folder):
    with (folder / "log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    return {"square": run.options["number"] ** 2}


def work(folder, meeting):
    meetings = [meeting]

    def do(run, folder):
        if meetings:
            # Until the other process is in a run too, however busy the machine.
            meetings.pop().wait(60)
        return square(run, folder)

    # Importing takes a while.
    meeting.wait()
    work_through(RUNS, folder, do)


def test_processes_share_the_runs(tmp_path):
    """Each run is done once, by one of two processes that both get some."""
    context = multiprocessing.get_context("spawn")
    meeting = context.Barrier(2)
    processes = [context.Process(target=work, args=(tmp_path, meeting), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    workers = [(tmp_path / run.name / "log").read_text().split() for run in RUNS]
    assert all(len(worker) == 1 for worker in workers)
    assert len({worker[0] for worker in workers}) == 2


def test_finished_runs_are_kept_and_others_resumed(tmp_path):
    def fail(run, folder):
        (folder / "begun").touch()
        if run.name == "run2":
            raise RuntimeError("power cut")
        return square(run, folder)

    with pytest.raises(RuntimeError):
        work_through(RUNS, tmp_path, fail)
    results = work_through(RUNS, tmp_path, square)
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16, 25]
    assert results[2] == {"name": "run2", "number": 2, "sizes": [1, 2], "square": 4}
    assert (tmp_path / "run2" / "begun").exists()
    assert all(len((tmp_path / run.name / "log").read_text().split()) == 1 for run in RUNS)
    assert not list(tmp_path.glob("**/*.partial"))


def test_other_options_are_refused_before_anything_runs(tmp_path):
    work_through(RUNS[:2], tmp_path, square)
    changed = [RUNS[0], Run("run1", {"number": 7, "sizes": (1, 2)}), RUNS[2]]
    with pytest.raises(InputError, match="run1 was begun with other options: number 1, not 7"):
        work_through(changed, tmp_path, square)
    assert not (tmp_path / "run2").exists()


def test_failed_run_may_start_again_with_other_options(tmp_path):
    """What a checkpoint was made with binds; options alone, which a killed process leaves, do not."""

    def fail(run, folder):
        raise InputError("no such corpus")

    other = Run("run1", {"number": 7})
    with pytest.raises(InputError, match="no such corpus"):
        work_through(RUNS[1:2], tmp_path / "new" / "runs", fail)
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "run1" / "options.json", RUNS[1].options)
    assert work_through([other], tmp_path, square)[0]["square"] == 49
    write_json(tmp_path / "run2" / "options.json", RUNS[2].options)
    (tmp_path / "run2" / "checkpoint-3").mkdir()
    with pytest.raises(InputError, match="run2 was begun with other options"):
        work_through([Run("run2", {"number": 7})], tmp_path, square)


@pytest.mark.parametrize("name", ["options.json", "result.json"])
@pytest.mark.parametrize("content", ['{"number": ', "[1]", ""])
def test_damaged_files_are_named(tmp_path, name, content):
    work_through(RUNS[:1], tmp_path, square)
    (tmp_path / "run0" / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: damaged"):
        work_through(RUNS[:1], tmp_path, square)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"nonsense"])
def test_damaged_arrays_are_named(tmp_path, content):
    (tmp_path / "arrays.npz").write_bytes(content)
    with pytest.raises(InputError, match="arrays.npz: missing or damaged"):
        read_arrays(tmp_path / "arrays.npz")
    with pytest.raises(InputError, match="none.npz: missing or damaged"):
        read_arrays(tmp_path / "none.npz")


@pytest.mark.parametrize("status", [0, 1])
def test_waiting_for_the_runs_of_other_processes(tmp_path, status):
    """Those that another process finishes are read, those that it gives up are done."""
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    process = context.Process(target=hold, args=(tmp_path, begun, status))
    process.start()
    begun.wait()
    assert work_through(RUNS[:2], tmp_path, square)[0] is None
    results = work_through(RUNS[:2], tmp_path, square, wait=True)
    process.join(60)
    assert [result["square"] for result in results] == [0 if status else -1, 1]


def hold(folder, begun, status):
    def slow(run, folder):
        begun.set()
        time.sleep(2)
        if status:
            os._exit(status)
        return {"square": -1}

    work_through(RUNS[:1], folder, slow)


def test_gathered_arrays(tmp_path):
    def do(run, folder):
        write_arrays(folder / "arrays.npz", {"steps": np.arange(run.options["number"]), "large": np.ones(9)})
        return {}

    results = work_through(RUNS[:3], tmp_path, do)
    gather(tmp_path, results, lambda result, name: name != "large" or result["number"] == 0)
    runs = load_gathered(tmp_path)
    assert [result for result, _ in runs] == results
    assert [sorted(arrays) for _, arrays in runs] == [["large", "steps"], ["steps"], ["steps"]]
    assert all(arrays["steps"].tolist() == list(range(result["number"])) for result, arrays in runs)
    assert json.loads((tmp_path / "results.json").read_text()) == results


@pytest.mark.parametrize(
    ("visible", "num_devices", "rank", "expected"),
    [
        (None, 8, None, "0"),
        (None, 8, "2", "2"),
        ("4,6", 2, "1", "6"),
        ("4,6", 2, "3", "6"),
        ("5", 1, None, "5"),
        ("", 0, "1", ""),
        (None, 0, "1", None),
    ],
)
def test_each_process_has_a_gpu_of_its_own(monkeypatch, visible, num_devices, rank, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_devices)
    monkeypatch.setenv("WORLD_SIZE", "8")
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("LOCAL_RANK", rank)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    leave_group()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == expected
    assert "WORLD_SIZE" not in os.environ and "LOCAL_RANK" not in os.environ

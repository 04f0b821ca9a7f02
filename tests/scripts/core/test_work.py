import json
import multiprocessing
import os

import numpy as np
import pytest
import torch

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import write_arrays
from mosaic_lab.core.work import Point, gather, leave_group, load_gathered, work_through

POINTS = [Point(f"run{number}", {"number": number, "sizes": (1, 2)}) for number in range(6)]


def square(point, folder):
    with (folder / "log").open("a") as log:
        log.write(f"{os.getpid()}\n")
    return {"square": point.options["number"] ** 2}


def work(folder, meeting):
    meetings = [meeting]

    def run(point, folder):
        if meetings:
            # Until the other process is in a run too, however busy the machine.
            meetings.pop().wait(60)
        return square(point, folder)

    # Importing takes a while.
    meeting.wait()
    work_through(POINTS, folder, run)


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
    workers = [(tmp_path / point.name / "log").read_text().split() for point in POINTS]
    assert all(len(worker) == 1 for worker in workers)
    assert len({worker[0] for worker in workers}) == 2


def test_finished_runs_are_kept_and_others_resumed(tmp_path):
    def fail(point, folder):
        (folder / "begun").touch()
        if point.name == "run2":
            raise RuntimeError("power cut")
        return square(point, folder)

    with pytest.raises(RuntimeError):
        work_through(POINTS, tmp_path, fail)
    results = work_through(POINTS, tmp_path, square)
    assert [result["square"] for result in results] == [0, 1, 4, 9, 16, 25]
    assert results[2] == {"name": "run2", "number": 2, "sizes": [1, 2], "square": 4}
    assert (tmp_path / "run2" / "begun").exists()
    assert all(len((tmp_path / point.name / "log").read_text().split()) == 1 for point in POINTS)
    assert not list(tmp_path.glob("**/*.partial"))


def test_other_options_are_refused_before_anything_runs(tmp_path):
    work_through(POINTS[:2], tmp_path, square)
    changed = [POINTS[0], Point("run1", {"number": 7, "sizes": (1, 2)}), POINTS[2]]
    with pytest.raises(InputError, match="run1 was begun with other options: number 1, not 7"):
        work_through(changed, tmp_path, square)
    assert not (tmp_path / "run2").exists()


def test_gathered_arrays(tmp_path):
    def run(point, folder):
        write_arrays(
            folder / "arrays.npz", {"steps": np.arange(point.options["number"]), "large": np.ones(9)}
        )
        return {}

    results = work_through(POINTS[:3], tmp_path, run)
    gather(tmp_path, results, lambda result, name: name == "large" and result["number"] > 0)
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

"""The runs of an experiment, one for each point of a grid: shared by processes, resumed, never run twice."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import describe_difference, read_json, write_arrays, write_json

OPTIONS, RESULT, ARRAYS = "options.json", "result.json", "arrays.npz"
# All results of an experiment, and the arrays that its pictures show.
RESULTS, FIGURES = "results.json", "figures.npz"
# What accelerate's launcher and torchrun tell a process of its group.
_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Point:
    """One run: the `name` of its folder, and the `options` that its result depends on."""

    name: str
    options: dict[str, Any] = field(hash=False)


def leave_group() -> None:
    """Lets each process that `accelerate launch` or `torchrun` started work alone, on a GPU of its own.

    The Trainer would otherwise let all of them train one model together. Must come before CUDA is used. Where
    there are more processes than GPUs, some share one.
    """
    rank = int(os.environ.get("LOCAL_RANK", 0))
    for name in _GROUP:
        os.environ.pop(name, None)
    num_devices = torch.cuda.device_count()
    if num_devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(device) for device in range(num_devices)]
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[rank % num_devices]


def work_through(
    points: list[Point], folder: Path, run: Callable[[Point, Path], dict[str, Any]]
) -> list[dict[str, Any] | None]:
    """Runs all points that have no result yet and that no other process is working on.

    Any number of processes can work through the same points in the same folder, on one machine or on several
    that share it: a lock on the point's folder, which ends with its process, keeps others away.

    Args:
        points (`list[Point]`): the runs.
        folder (`Path`): holds a folder for each, with its `options.json` and, once it is done, `result.json`.
        run (`Callable`): does a point's work in its folder, resuming what it finds there; returns the result.

    Returns:
        `list`: the result of each point, with its name and options; `None` while another process works on it.

    Raises:
        InputError: if a point's folder was begun with other options. Nothing has been run then.
    """
    for point in points:
        _refuse_to_mix(point, folder / point.name)
    for point in (progress := tqdm(points, desc="runs")):
        progress.set_postfix_str(point.name)
        place = folder / point.name
        place.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(place / "lock", timeout=0):
                if not (place / RESULT).exists():
                    write_json(place / OPTIONS, point.options)
                    result = run(point, place)
                    write_json(place / RESULT, {"name": point.name, **point.options, **result})
        except Timeout:
            continue
    return [read_json(folder / point.name / RESULT) for point in points]


def gather(folder: Path, results: list[dict[str, Any]], unwanted: Callable[..., bool]) -> None:
    """Leaves `results.json` and `figures.npz` in `folder`: all that tables and pictures are made from.

    Args:
        folder (`Path`): of the experiment.
        results (`list[dict]`): of its runs.
        unwanted (`Callable`): told a result and the name of one of its run's arrays, whether to leave it out.
    """
    arrays = {}
    for result in results:
        with np.load(folder / result["name"] / ARRAYS) as saved:
            arrays |= {
                f"{result['name']}/{name}": saved[name] for name in saved.files if not unwanted(result, name)
            }
    write_arrays(folder / FIGURES, arrays)
    write_json(folder / RESULTS, results)


def load_gathered(folder: Path) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """What `gather` left: each run's result, and its arrays by name."""
    runs = [(result, {}) for result in read_json(folder / RESULTS)]
    by_name = {result["name"]: arrays for result, arrays in runs}
    with np.load(folder / FIGURES) as saved:
        for key in saved.files:
            run, name = key.rsplit("/", 1)
            by_name[run][name] = saved[key]
    return runs


def _refuse_to_mix(point: Point, place: Path) -> None:
    before = read_json(place / OPTIONS)
    # As they come back from the file.
    now = json.loads(json.dumps(point.options))
    if before is not None and before != now:
        raise InputError(
            f"{place} was begun with other options: {describe_difference(before, now)}; name another "
            "output_dir, or move that folder away"
        )

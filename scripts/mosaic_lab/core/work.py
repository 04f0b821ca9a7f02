"""Runs: units of work with a folder each, shared by processes, resumed, and never done twice."""

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import (
    describe_difference,
    make_folder,
    missing_folders,
    read_json,
    read_object,
    remove_empty,
    write_arrays,
    write_json,
)

# Files in the folder of a run.
OPTIONS, RESULT, ARRAYS, LOCK = "options.json", "result.json", "arrays.npz", "lock"
# Files in the folder of an experiment: the results of all runs, the arrays that pictures show, the tables.
RESULTS, FIGURES, TABLES = "results.json", "figures.npz", "results.md"
# Environment variables by which accelerate's launcher and torchrun describe a process's group.
_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")

_SHOWN = {np.dtype(np.float64): np.dtype(np.float32)}

Result = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One unit of work.

    Args:
        name (`str`): name of its folder.
        options (`dict`): everything that its result depends on, as JSON.
        inputs (*optional*): whatever the work needs and nobody records, such as a loaded model.
    """

    name: str
    options: dict[str, Any] = field(hash=False)
    inputs: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Experiment:
    """An experiment of `reproduce`: its options, and the function that carries it out.

    Args:
        description (`str`): what it does, for the help text.
        groups (`tuple[type, ...]`): dataclasses of its options; one of them has `output_dir`.
        carry_out (`Callable`): gets the options, an object per group; mostly made by `share`.
        passes_on (`bool`): whether `carry_out` also gets the list of unknown options.
    """

    description: str
    groups: tuple[type, ...]
    carry_out: Callable[..., None]
    passes_on: bool = False


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


def share(
    plan: Callable[..., list[Run]],
    do: Callable[..., Result],
    report: Callable[[Path, list[Result]], str],
) -> Callable[..., None]:
    """Makes the function that does the remaining runs of an experiment and, when none is left, reports.

    Args:
        plan (`Callable`): gets the options, and returns the runs; raises an `InputError` before anything is
            written.
        do (`Callable`): gets a run, its folder and the options, see `work_through`.
        report (`Callable`): gets the folder of the experiment and all results, leaves tables and pictures
            there, and returns what to print.

    Returns:
        `Callable`: gets the options, of which one group has `output_dir`.
    """

    def carry_out(*options: Any) -> None:
        runs = plan(*options)
        folder = Path(next(group.output_dir for group in options if hasattr(group, "output_dir")))
        results = work_through(runs, folder, lambda run, place: do(run, place, *options))
        if None in results:
            print(f"{results.count(None)} runs are left to other processes; the last one of them reports")
            return
        # Two processes may both find that all runs are done.
        with FileLock(folder / LOCK):
            print(f"\n{report(folder, results)}")

    return carry_out


def work_through(
    runs: list[Run], folder: Path, do: Callable[[Run, Path], Result], wait: bool = False
) -> list[Result | None]:
    """Does all runs that have no result yet and that no other process is working on.

    Any number of processes can work through the same runs in the same folder, on one machine or on several
    that share it: a lock on the run's folder, which ends with its process, keeps others away. A run that
    stopped before its first checkpoint may be started again with other options.

    Args:
        runs (`list[Run]`): the runs.
        folder (`Path`): holds a folder for each, with its `options.json` and, once it is done, `result.json`.
        do (`Callable`): does a run's work in its folder, resuming what it finds there; returns the result.
        wait (`bool`): whether to wait for the runs of other processes, and to do those that they give up.

    Returns:
        `list`: the result of each run, with its name and options; `None` while another process works on it.

    Raises:
        InputError: if a run's folder holds work with other options, or a damaged file. Nothing has been done
            then.
    """
    for run in runs:
        _refuse_to_mix(run, folder / run.name)
    for run in (progress := tqdm(runs, desc="runs")):
        progress.set_postfix_str(run.name)
        _do_once(run, folder / run.name, do, timeout=0)
    if wait:
        for run in runs:
            _do_once(run, folder / run.name, do, timeout=-1)
    return [_read_result(run, folder / run.name) for run in runs]


def _do_once(run: Run, place: Path, do: Callable[[Run, Path], Result], timeout: float) -> None:
    if (place / RESULT).exists():
        return
    made = missing_folders(place)
    make_folder(place)
    try:
        held = FileLock(place / LOCK).acquire(timeout=timeout)
    except Timeout:
        return
    with held:
        if (place / RESULT).exists():
            return
        _refuse_to_mix(run, place)
        write_json(place / OPTIONS, run.options)
        try:
            result = do(run, place)
        except BaseException:
            if not _is_begun(place):
                # While the lock is held: afterwards it could be another process's.
                for name in (OPTIONS, LOCK):
                    (place / name).unlink(missing_ok=True)
                remove_empty([place, *made[1:]])
            raise
        write_json(place / RESULT, {"name": run.name, **run.options, **result})


def _is_begun(place: Path) -> bool:
    """Whether there is something that must not be continued with other options."""
    return (place / RESULT).exists() or any(place.glob("checkpoint-*"))


def _refuse_to_mix(run: Run, place: Path) -> None:
    # A killed process leaves its options without anything that was made with them.
    before = read_object(place / OPTIONS) if _is_begun(place) else None
    # As they come back from the file.
    now = json.loads(json.dumps(run.options))
    if before is not None and before != now:
        raise InputError(
            f"{place} was begun with other options: {describe_difference(before, now)}; name another "
            "output_dir, or move that folder away"
        )


def _read_result(run: Run, place: Path) -> Result | None:
    # Another process may have done it with other options meanwhile.
    _refuse_to_mix(run, place)
    return read_object(place / RESULT)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote.

    Raises:
        InputError: if it is missing or damaged.
    """
    try:
        with np.load(path) as saved:
            return {name: saved[name] for name in saved.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: missing or damaged: {error}") from error


def gather(
    folder: Path,
    results: list[Result],
    shown: Callable[[Result, str], bool] = lambda result, name: True,
) -> None:
    """Leaves `results.json` and `figures.npz` in `folder`: all that tables and pictures are made from.

    Arrays of double precision are saved in single precision, which is enough for pictures.

    Args:
        folder (`Path`): folder of the experiment.
        results (`list[dict]`): results of its runs.
        shown (`Callable`, *optional*): gets a result and the name of one of its run's arrays; returns whether
            pictures show it. All of them by default.
    """
    arrays = {}
    for result in results:
        for name, array in read_arrays(folder / result["name"] / ARRAYS).items():
            if shown(result, name):
                arrays[f"{result['name']}/{name}"] = array.astype(_SHOWN.get(array.dtype, array.dtype))
    write_arrays(folder / FIGURES, arrays)
    write_json(folder / RESULTS, results)


def load_gathered(folder: Path) -> list[tuple[Result, dict[str, np.ndarray]]]:
    """Reads what `gather` left: each run's result, and its arrays by name."""
    runs = [(result, {}) for result in read_json(folder / RESULTS)]
    by_name = {result["name"]: arrays for result, arrays in runs}
    for key, array in read_arrays(folder / FIGURES).items():
        run, name = key.rsplit("/", 1)
        by_name[run][name] = array
    return runs

"""Runs of `train.py` in one or several processes, which may be killed at a chosen moment.

The processes are forked from a server that has imported everything, so that a run takes seconds.
"""

import functools
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
SECONDS, GRACE_SECONDS = 120, 20


def run_group(argv, log, size=1, environment=(), kill=None, seconds=SECONDS):
    """Runs `train.py` with `argv` in `size` processes, all of which end when one of them fails.

    Args:
        argv (`list`): for `train.py`.
        log (`Path`): file for what the processes print.
        size (`int`): number of processes, 1 for no process group at all.
        environment (`dict`): variables to set.
        kill (`tuple[int, int, bool]`, *optional*): the process that is to be killed, at which of its changes
            to checkpoints, and whether in the middle of a write (before it, otherwise).
        seconds (`float`): after which all of them are killed.

    Returns:
        `list[int]`: the processes' exit codes.
    """
    _start_server()
    processes = []
    try:
        for rank, own in enumerate(_describe_group(size)):
            point = kill[1:] if kill is not None and kill[0] == rank else None
            arguments = ([str(word) for word in argv], str(log), {**dict(environment), **own}, point)
            processes.append(_CONTEXT.Process(target=_work, args=arguments))
            processes[-1].start()
        _wait(processes, time.monotonic() + seconds)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _describe_group(size):
    """What torchrun tells each process."""
    if size == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1], "WORLD_SIZE": size}
    return [{**group, "RANK": rank, "LOCAL_RANK": rank} for rank in range(size)]


def _wait(processes, deadline):
    """Until all have ended, which those left by a failed one do in a while, or it is too late."""
    running = processes
    while running and time.monotonic() < deadline:
        multiprocessing.connection.wait(
            [process.sentinel for process in running], deadline - time.monotonic()
        )
        if any(process.exitcode for process in running):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        running = [process for process in running if process.exitcode is None]


@functools.cache
def _start_server():
    """The server finds modules by the environment's path only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        _CONTEXT.set_forkserver_preload(["process_group", "train", "accelerate.utils.fsdp_utils"])
        multiprocessing.forkserver.ensure_running()


def count_changes(argv, log):
    """How many changes to checkpoints the first process of `run_group` makes in a whole run."""
    assert run_group(argv, log, kill=(0, sys.maxsize, False)) == [0], log.read_text()
    return int(log.read_text().split("changes: ")[-1])


def _work(argv, log, environment, point):
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {name: str(value) for name, value in environment.items()}
    import datasets
    import torch
    from accelerate.state import DistributedType, PartialState

    from mosaic_lab.programs import train

    if environment.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate shards models on accelerators only, though torch can do so on CPUs through gloo.
        PartialState._prepare_backend = lambda self, *args: ("gloo", DistributedType.MULTI_GPU)
    datasets.config.HF_DATASETS_CACHE = Path(os.environ["HF_DATASETS_CACHE"])
    torch.set_num_threads(1)
    changes = _Changes(*point) if point is not None else None
    train.main(argv)
    if changes:
        print("changes:", changes.count, flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Changes:
    """Counts what happens to checkpoints, and kills this process when its time has come."""

    def __init__(self, last, halfway):
        import safetensors.torch
        import torch
        import transformers.modeling_utils

        self.count, self.last, self.halfway = 0, last, halfway
        # Compiled code writes what these save, unseen by Python.
        torch.save = self._reported(torch.save)
        save_file = self._reported(safetensors.torch.save_file)
        safetensors.torch.save_file = transformers.modeling_utils.safe_save_file = save_file
        sys.addaudithook(self._look)

    def _look(self, event, arguments):
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax"):
            if not isinstance(arguments[0], int):
                self._change(os.fspath(arguments[0]))
        elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir"):
            # What `rmtree` deletes has a name relative to an open folder.
            in_folder = event == "os.remove" and arguments[1] != -1
            self._change(f"checkpoint-{arguments[0]}" if in_folder else arguments[0], is_write=False)

    def _reported(self, save):
        def reported(content, path, *args, **kwargs):
            self._change(os.fspath(path))
            return save(content, path, *args, **kwargs)

        return reported

    def _change(self, path, is_write=True):
        if "checkpoint-" not in str(path):
            return
        if self.count == self.last:
            if self.halfway and is_write:
                os.write(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), b"{")
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

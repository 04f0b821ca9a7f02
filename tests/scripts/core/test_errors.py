import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from modeling_mosaic import MosaicConfig
from mosaic_lab.core.command import list_recipes
from mosaic_lab.core.errors import InputError, explain, first_line, reported_as

SIGNALS = """
import os, signal, sys, time
from mosaic_lab.core.errors import reported_as

# Programs that a shell starts in the background inherit that it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with reported_as("train", resume="--resume_from_checkpoint resumes"):
    reads, writes = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.write(writes, b"ready")
        time.sleep(60)
        os._exit(0)
    os.read(reads, 5)
    os.kill(worker, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(60)
"""


def raised(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("raised nothing")


def wrap(kind, call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        raise kind("something failed") from error


def missing_column():
    raise InputError("no column 'text'")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((missing_column,), "no column 'text'"),
        ((wrap, RuntimeError, missing_column), "no column 'text'"),
        (
            (json.loads, "{"),
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1) (JSON",
        ),
        ((torch.nn.Linear(2, 2), torch.zeros(3)), "(RuntimeError in torch.nn.modules.linear)"),
        ((wrap, RuntimeError, json.loads, "{"), "something failed: Expecting property name"),
        ((open, "/nope/file"), "/nope/file: No such file or directory"),
        ((partial(MosaicConfig, hidden_size=-1),), "hidden_size"),
    ],
)
def test_the_users_errors_are_explained(call, message):
    assert message in explain(raised(*call))


def test_bugs_are_not():
    # In code of the programs, and attributes that are not there in anyone's.
    assert explain(raised(list_recipes, 3)) is None
    assert explain(raised(wrap, RuntimeError, list_recipes, 3)) is None
    assert explain(raised(Path.joinpath, None)) is None
    assert explain(ModuleNotFoundError("x", name="mosaic_lab.nope")) is None
    with pytest.raises(TypeError), reported_as("train"):
        list_recipes(3)


def test_long_advice_is_cut():
    error = ValueError(f"The reason. You {'might ' * 50}run rm -rf.\nMore.")
    assert first_line(error) == "The reason."
    assert first_line(RuntimeError("Errors:\n\tin x\n\tin y")) == "Errors: in x"
    assert first_line(KeyError("it's")) == "it's" and first_line(ValueError()) == "ValueError"


def test_one_line_whatever_is_in_it(capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop, reported_as("train"):
        raise InputError("a\n\x1b[31mb \udcff é")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "train: error: a \\x1b[31mb \\udcff é\n"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mosaic push"])
    monkeypatch.setenv("MOSAIC_TRACEBACK", "1")
    with pytest.raises(SystemExit), reported_as("push_to_hub"):
        raise InputError("b")
    *printed, last = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("Traceback") and last == "push: error: b"


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals(name, status):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, name], capture_output=True, text=True, timeout=50, env=environment
    )
    assert done.returncode == status
    # Of the worker, nothing is seen.
    assert done.stdout == "143\n" and done.stderr == "\ntrain: stopped; --resume_from_checkpoint resumes\n"

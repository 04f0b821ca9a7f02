"""The command `mosaic`, the programs in `scripts/`, and what they set before torch is imported."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from mosaic_lab import cli
from mosaic_lab.core.command import CommandParser

ROOT = Path(__file__).parents[2]
PROCESSES = ROOT / "configuration" / "accelerate" / "cpu-processes.yaml"
SCRIPTS = ROOT / "scripts"
MOSAIC = "import sys; sys.argv[0] = 'mosaic'; from mosaic_lab.cli import main; main()"
# Runs in every Python process at its start: notes how threads will wait when torch is imported, and ends
# a program that is there for that only.
WITNESS = """
import importlib.abc, os, sys

class Witness(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.meta_path.remove(self)
            is_program = os.path.basename(sys.argv[0]) == "train.py" or sys.argv[0].startswith("mosaic")
            if is_program:
                with open(os.environ["WITNESS"], "a") as file:
                    print(os.environ.get("GOMP_SPINCOUNT"), file=file)
                os._exit(0)

sys.meta_path.insert(0, Witness())
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command of Python's; returns the process, and each program's spin count as torch finds it."""
    (tmp_path / "start").mkdir()

    def run(*command, is_watched=True, **environment):
        (tmp_path / "start" / "sitecustomize.py").write_text(WITNESS if is_watched else "")
        path = [str(tmp_path / "start"), *filter(None, sys.path)]
        base = {
            name: value
            for name, value in os.environ.items()
            if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        }
        seen = tmp_path / "seen"
        seen.write_text("")
        environment = base | environment | {"PYTHONPATH": os.pathsep.join(path), "WITNESS": str(seen)}
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done, seen.read_text().split()

    return run


@pytest.mark.skipif(any(Path(driver).exists() for driver in cli._GPU_DRIVERS), reason="there is a GPU")
def test_idle_threads_sleep(run):
    for program in ((SCRIPTS / "train.py",), ("-c", MOSAIC, "train")):
        assert run(*program, "--help")[1] == ["1000"]
    assert run(SCRIPTS / "train.py", OMP_WAIT_POLICY="ACTIVE")[1] == ["None"]
    assert run(SCRIPTS / "train.py", GOMP_SPINCOUNT="7")[1] == ["7"]


@pytest.mark.slow
@pytest.mark.skipif(any(Path(driver).exists() for driver in cli._GPU_DRIVERS), reason="there is a GPU")
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc-per-node", "2"),
        ("accelerate.commands.launch", "--cpu"),
        ("accelerate.commands.launch", "--config_file", PROCESSES, "--num_processes", "2"),
    ],
)
def test_idle_threads_sleep_in_launched_processes(run, launcher):
    done, counts = run("-m", *launcher, SCRIPTS / "train.py", "--help")
    number = 2 if "2" in launcher else 1
    assert counts == ["1000"] * number, done.stderr


def test_gpus_keep_their_threads(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(cli, "_GPU_DRIVERS", (str(tmp_path),))
    cli._let_threads_sleep()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_help_lists_every_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mosaic"])
    cli.main()
    printed = capsys.readouterr().out
    for command, (_, line) in cli.COMMANDS.items():
        assert f"  {command} " in printed and line in printed
    monkeypatch.setattr(sys, "argv", ["mosaic", "trian"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2 and "no command 'trian'; there are train" in capsys.readouterr().err


def test_each_script_has_its_program():
    programs = [path.stem for path in SCRIPTS.glob("*.py")]
    assert "train" in programs and all(find_spec(f"mosaic_lab.programs.{program}") for program in programs)


def test_names_and_missing_packages(run):
    done, _ = run("-c", MOSAIC, "convert", is_watched=False)
    assert done.returncode == 2
    assert done.stderr == "convert: error: the following arguments are required: checkpoint, --output_dir\n"
    without = f"import sys; sys.modules['datasets'] = None; {MOSAIC}"
    done, _ = run("-c", without, "train", "demo", is_watched=False)
    assert done.returncode == 2
    assert (
        done.stderr == "train: error: the package datasets is missing: pip install 'memory-mosaics[train]'\n"
    )


@pytest.mark.parametrize("program", ["reproduce", "evaluate", "make_stories", "benchmark"])
def test_stopped_programs_say_that_they_resume(monkeypatch, capsys, program):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(CommandParser, "parse_known", stop)
    argv = ["three_moons/grid"] if program == "reproduce" else []
    with pytest.raises(SystemExit) as stopped:
        import_module(f"mosaic_lab.programs.{program}").main(argv)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == f"\n{program}: stopped; the same command resumes\n"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_have_help(run, script):
    done, _ = run(script, "--help", is_watched=False)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {script.stem}"), done.stderr

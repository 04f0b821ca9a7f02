"""What pip installs, where no checkout is in sight."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = {"modeling_mosaic": "", "configuration": "mosaic_lab", "hub_cards": "mosaic_lab"}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The folder with the wheel, made from the source archive, which is made from a copy of the checkout."""
    place = tmp_path_factory.mktemp("build")
    clutter = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("modeling_mosaic", "scripts", "configuration", "hub_cards"):
        shutil.copytree(ROOT / name, place / "source" / name, ignore=clutter)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place / "source")
    backend = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
    for kind, folder in (("build_sdist", place / "source"), ("build_wheel", place / "unpacked")):
        if kind == "build_wheel":
            with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
                archive.extractall(place, filter="data")
            next(place.glob("memory_mosaics-*/")).rename(folder)
        subprocess.run(
            [sys.executable, "-c", backend, kind, str(place)], cwd=folder, check=True, capture_output=True
        )
    return place


@pytest.fixture(scope="module")
def installed(build):
    """The folder into which pip has put the wheel."""
    folder = build / "installed"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(next(build.glob("*.whl")))], check=True, capture_output=True)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Runs a command of the installed package in an empty folder; returns what it prints."""

    def run(*command):
        # The folder comes before site-packages, where the checkout may be installed too.
        environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_file_is_in_the_wheel(installed):
    expected = {
        Path(target, path.relative_to(ROOT))
        for folder, target in SHIPPED.items()
        for path in (ROOT / folder).rglob("*")
    } | {path.relative_to(ROOT / "scripts") for path in (ROOT / "scripts" / "mosaic_lab").rglob("*")}
    missing = {
        str(path)
        for path in expected
        if path.suffix and path.suffix != ".pyc" and not (installed / path).exists()
    }
    assert not missing


def test_trains_and_writes_without_the_checkout(run, installed, tmp_path):
    mosaic = installed / "bin" / "mosaic"
    where = run(
        "-c", "import modeling_mosaic, mosaic_lab; print(modeling_mosaic.__file__, mosaic_lab.__file__)"
    )
    assert all(Path(file).is_relative_to(installed) for file in where.split())
    overrides = "--num_stories 60 --train_tokenizer 300 --block_size 32 --per_device_train_batch_size 2"
    overrides += " --max_steps 5 --eval_strategy no --save_strategy no --use_cpu --disable_tqdm true"
    run(mosaic, "train", "demo", "--output_dir", "out", *overrides.split())
    assert json.loads((tmp_path / "out" / "results.json").read_text())["steps"] == 5
    printed = run(mosaic, "generate", "out", "Once upon a time", "--max_new_tokens", "5", "--device", "cpu")
    assert printed.startswith("Once upon a time")

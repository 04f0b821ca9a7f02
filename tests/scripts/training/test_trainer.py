import os
import random
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from mosaic_lab.core.errors import InputError
from mosaic_lab.training.options import TrainingArguments, check_output_dir
from mosaic_lab.training.trainer import is_complete, last_checkpoint
from process_group import count_changes, run_group

SIZES = (1, 2)


@pytest.fixture(scope="module")
def straight(short_recipe, tmp_path_factory):
    """The weights of undisturbed runs in one and two processes; how often the former changes checkpoints."""
    folder = tmp_path_factory.mktemp("straight")
    num_changes = count_changes([short_recipe, "--output_dir", folder / "1"], folder / "log")
    codes = run_group([short_recipe, "--output_dir", folder / "2"], folder / "log", 2)
    assert codes == [0, 0], (folder / "log").read_text()
    return {size: load_file(folder / str(size) / "model.safetensors") for size in SIZES}, num_changes


@pytest.fixture
def run(short_recipe, tmp_path):
    """Runs the recipe in the same folder again and again."""

    def run(size, *options, **how):
        argv = [short_recipe, "--output_dir", tmp_path / "out", *options]
        return run_group(argv, tmp_path / "log", size, **how)

    return run


def check_resumed(run, folder, straight, size=1):
    """A killed run goes on from its last complete checkpoint, or starts anew without one, to the same end.

    Returns the checkpoint's name.
    """
    last = last_checkpoint(folder / "out")
    codes = run(size, *(["--resume_from_checkpoint"] if last else []))
    assert codes == [0] * size, (folder / "log").read_text()
    resumed = load_file(folder / "out" / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in straight[0][size].items())
    assert last_checkpoint(folder / "out") == str(folder / "out" / "checkpoint-6")
    return last and os.path.basename(last)


@pytest.mark.parametrize(
    ("share", "halfway", "found"),
    [
        (0.0, False, None),
        (0.2, True, None),
        (0.3, True, "checkpoint-2"),
        (0.5, False, "checkpoint-4"),
        (0.7, True, "checkpoint-4"),
        (0.97, False, "checkpoint-6"),
    ],
)
def test_killed_while_checkpoints_change(run, tmp_path, straight, share, halfway, found):
    assert run(1, kill=(0, int(share * straight[1]), halfway)) == [-signal.SIGKILL]
    assert check_resumed(run, tmp_path, straight) == found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", SIZES)
def test_killed_at_every_change(short_recipe, tmp_path, straight, size):
    for change in range(0, straight[1], size**2):
        for halfway in (False, True):
            folder = tmp_path / f"{change}{halfway}"
            folder.mkdir()
            argv = [short_recipe, "--output_dir", folder / "out"]

            def run(size, *options, argv=argv, log=folder / "log", **how):
                return run_group([*argv, *options], log, size, **how)

            assert -signal.SIGKILL in run(size, kill=(0, change, halfway)), change
            check_resumed(run, folder, straight, size)


def test_one_of_two_processes_is_killed_in_its_share(run, tmp_path, straight):
    """The other one has written all of its own, but must not declare the checkpoint complete."""
    assert -signal.SIGKILL in run(2, kill=(1, 3, True))
    assert (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").exists()
    assert check_resumed(run, tmp_path, straight, 2) == "checkpoint-2"


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("attempt", range(3))
def test_killed_at_random(run, tmp_path, straight, size, attempt):
    seconds = random.uniform(0, 12)
    print(f"killed after {seconds} seconds")
    run(size, seconds=seconds)
    check_resumed(run, tmp_path, straight, size)


@pytest.fixture
def checkpoint(tmp_path, trained):
    shutil.copytree(trained / "checkpoint-6", tmp_path / "checkpoint-6")
    shutil.copytree(trained / "checkpoint-12", tmp_path / "checkpoint-12")
    return tmp_path / "checkpoint-12"


def test_last_checkpoint(tmp_path, checkpoint):
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) == str(checkpoint)
    assert last_checkpoint(tmp_path / "none") is None


@pytest.mark.parametrize("name", ["complete.json", "optimizer.pt", "rng_state.pth"])
def test_half_deleted_checkpoints_are_incomplete(tmp_path, checkpoint, name):
    (checkpoint / name).unlink()
    assert not is_complete(checkpoint)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    arguments = TrainingArguments(str(tmp_path), resume_from_checkpoint=str(checkpoint))
    with pytest.raises(InputError, match="checkpoint-12: not the folder of a complete checkpoint"):
        check_output_dir(arguments)


def test_truncated_checkpoints_are_incomplete(checkpoint):
    os.truncate(checkpoint / "model.safetensors", 100)
    assert not is_complete(checkpoint)


def test_added_files_do_no_harm(checkpoint):
    (checkpoint / "notes.md").touch()
    assert is_complete(checkpoint)

import json
import os
import random
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from mosaic_lab.core.errors import InputError
from mosaic_lab.core.files import occupying
from mosaic_lab.programs import train
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
    log = (folder / "log").read_text()
    assert codes == [0] * size, log
    assert not [problem for problem in ("missing keys", "mtime", "find_unused") if problem in log]
    resumed = load_file(folder / "out" / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in straight[0][size].items())
    assert last_checkpoint(folder / "out") == str(folder / "out" / "checkpoint-6")
    return last and os.path.basename(last)


@pytest.mark.parametrize(
    ("share", "halfway", "found"),
    [
        (0.2, True, None),
        (0.3, True, "checkpoint-2"),
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


def zero(file):
    file.write_bytes(bytes(file.stat().st_size))


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", lambda file: os.truncate(file, 100)),
        ("model.safetensors", zero),
        ("model.safetensors", flip_a_bit),
        ("trainer_state.json", zero),
        ("complete.json", zero),
        ("complete.json", lambda file: file.write_text("")),
        ("complete.json", lambda file: file.write_text("[]")),
    ],
)
def test_damaged_checkpoints_lead_to_the_one_before(tmp_path, checkpoint, name, damage):
    assert is_complete(checkpoint)
    damage(checkpoint / name)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")


def test_damaged_checkpoint_gives_way_to_new_ones(recipe, tmp_path, checkpoint):
    """It has more steps, but does not count among those to keep."""
    zero(checkpoint / "model.safetensors")
    options = ["--output_dir", str(tmp_path), "--resume_from_checkpoint", "--save_total_limit", "3"]
    train.main([str(recipe), *options, "--max_steps", "9", "--save_steps", "3"])
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-6", "checkpoint-9"}


def test_diverged_run_stops_and_keeps_the_checkpoints_before(short_recipe, tmp_path, read_error):
    """The first step of the warmup changes nothing, the second one makes weights of 1e36."""
    out = tmp_path / "out"
    options = ["--learning_rate", "1e38", "--warmup_steps", "100", "--save_steps", "1"]
    error = read_error(train.main, short_recipe, "--output_dir", out, *options, "--save_total_limit", "3")
    assert "step 3: the loss is nan" in error and error.endswith(
        "the last checkpoint before is " + str(out / "checkpoint-2")
    )
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-1", "checkpoint-2"]
    for checkpoint in out.iterdir():
        weights = load_file(checkpoint / "model.safetensors").values()
        assert is_complete(checkpoint) and all(weight.isfinite().all() for weight in weights)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--learning_rate", "1e39", "--save_steps", "1"], "step 1: the weights are not finite any more ("),
        (
            ["--learning_rate", "1e36", "--max_steps", "1", "--save_strategy", "no"],
            "step 1: the validation loss is nan",
        ),
    ],
)
def test_runs_that_diverge_at_once_leave_nothing(short_recipe, tmp_path, read_error, options, problem):
    error = read_error(train.main, short_recipe, "--output_dir", tmp_path / "runs" / "out", *options)
    assert problem in error and error.endswith("there is no checkpoint before")
    assert not (tmp_path / "runs").exists()


def test_only_the_same_run_is_resumed(recipe, tmp_path, checkpoint, read_error):
    """What differs is named; rows differ by their content, whatever they are called."""
    resume = [recipe, "--output_dir", tmp_path, "--resume_from_checkpoint", checkpoint]
    (tmp_path / "data").mkdir()
    for options, problems in (
        (["--learning_rate", "0.5", "--seed", "5"], ["learning_rate 0.03, not 0.5", "seed 42, not 5"]),
        (["--adam_epsilon", "1e-4"], ["adam_epsilon 1e-08, not 0.0001"]),
        (["--block_size", "32"], ["block_size 64, not 32", "rows.number"]),
        (["--train_tokenizer", "300"], ["train_tokenizer 320, not 300", "rows.crc32"]),
        (["--model", "mosaic-tiny"], ["model_config.hidden_size 32, not 128"]),
    ):
        error = read_error(train.main, *resume, *options)
        assert "the run was begun with other options: " in error
        assert all(problem in error for problem in problems), error


def test_rows_are_known_by_their_content(recipe, tmp_path, read_error):
    (tmp_path / "tales.txt").write_text("Once there was a dog.\n\n" * 2000)
    options = ["--dataset", tmp_path / "tales.txt", "--output_dir", tmp_path / "out", "--save_steps", "1"]
    options += ["--per_device_train_batch_size", "2", "--eval_strategy", "no", "--train_tokenizer", "257"]
    train.main([str(recipe), *map(str, options), "--max_steps", "1"])
    (tmp_path / "tales.txt").write_text("Once there was a cat.\n\n" * 2000)
    error = read_error(train.main, recipe, *options, "--max_steps", "2", "--resume_from_checkpoint")
    assert "other options: rows.crc32 " in error and "dataset" not in error.split("options: ")[1]


def test_length_and_logging_may_change(recipe, tmp_path, checkpoint):
    options = ["--output_dir", str(tmp_path), "--resume_from_checkpoint", "--max_steps", "14"]
    train.main([str(recipe), *options, "--logging_steps", "1"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] == results["recipe"]["max_steps"] == 14
    assert results["earlier_lengths"] == [{"until_step": 12, "max_steps": 12, "num_train_epochs": 3.0}]
    steps = json.loads((tmp_path / "loss_curve.json").read_text())["train"]["step"]
    assert steps[-3:] == [12, 13, 14]


def test_second_program_in_a_folder_stops(short_recipe, tmp_path, read_error):
    with occupying(tmp_path / "out"):
        error = read_error(train.main, short_recipe, "--output_dir", tmp_path / "out")
    assert error.endswith(f"output_dir {tmp_path / 'out'}: another program is at work in this folder")
    assert not list(tmp_path.iterdir())


def test_added_files_do_no_harm(checkpoint):
    (checkpoint / "notes.md").touch()
    assert is_complete(checkpoint)

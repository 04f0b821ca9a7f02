"""Several processes train as one does. On a CPU they talk through gloo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import merge_fsdp_weights
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from process_group import run_group

SCRIPTS = Path(__file__).parents[3] / "scripts"
FSDP2 = SCRIPTS.parent / "configuration" / "accelerate" / "fsdp2.yaml"
CPU_PROCESSES = FSDP2.with_name("cpu-processes.yaml")
NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}


@pytest.fixture(scope="module")
def exact_recipe(recipe, short_recipe):
    """`short_recipe` for a model without dropout, whose masks would differ, and the loss of each step."""
    config = json.loads(recipe.with_name("model.json").read_text())
    model = recipe.with_name("no-dropout.json")
    model.write_text(json.dumps({**config, **NO_DROPOUT}))
    changes = {"model": model, "logging_steps": 1, "save_total_limit": 3}
    lines = (line for line in short_recipe.read_text().splitlines() if line.split(":")[0] not in changes)
    path = recipe.with_name("exact.yaml")
    path.write_text("\n".join([*lines, *(f"{name}: {value}" for name, value in changes.items())]))
    return path


@pytest.fixture(scope="module")
def fsdp_environment():
    """What `accelerate launch --config_file fsdp2.yaml` tells the processes of the plugin."""
    arguments = launch_command_parser().parse_args(["--config_file", str(FSDP2), "train.py"])
    arguments, *_ = _validate_launch_command(arguments)
    environment = prepare_multi_gpu_env(arguments)
    return {
        "ACCELERATE_TORCH_DEVICE": "cpu",
        **{name: environment[name] for name in environment if name.startswith(("FSDP_", "ACCELERATE_"))},
    }


@pytest.fixture(scope="module")
def run(exact_recipe, tmp_path_factory):
    """Runs the recipe with eight rows a step, and returns its folder."""

    def run(size, *options, environment=(), folder=None):
        folder = folder or tmp_path_factory.mktemp("run") / "out"
        rows = ["--per_device_train_batch_size", 4 // size]
        argv = [exact_recipe, "--output_dir", folder, *rows, *options]
        codes = run_group(argv, folder.parent / "log", size, environment)
        assert codes == [0] * size, (folder.parent / "log").read_text()
        return folder

    return run


@pytest.fixture(scope="module")
def alone(run):
    return run(1)


@pytest.fixture(scope="module")
def sharded(run, fsdp_environment):
    return run(2, "--use_cpu", "false", environment=fsdp_environment)


def read_losses(folder):
    return json.loads((folder / "loss_curve.json").read_text())["train"]


def read_state(folder):
    return json.loads((folder / "trainer_state.json").read_text())


def assert_same_training(folder, expected):
    assert read_losses(folder)["step"] == read_losses(expected)["step"] == [1, 2, 3, 4, 5, 6]
    assert read_losses(folder)["loss"] == pytest.approx(read_losses(expected)["loss"], rel=1e-5)
    weights, others = load_file(folder / "model.safetensors"), load_file(expected / "model.safetensors")
    assert weights.keys() == others.keys()
    torch.testing.assert_close(weights, others, rtol=1e-3, atol=1e-4)


def test_data_parallel_training(run, alone):
    assert_same_training(run(2), alone)


def test_sharded_training(sharded, alone):
    assert_same_training(sharded, alone)
    lines = read_state(sharded)["log_history"][:6]
    assert all(line["tokens_per_second"] > 0 and line["mfu"] > 0 for line in lines)
    assert read_state(sharded)["total_flos"] == read_state(alone)["total_flos"] > 0
    assert {path.name for path in (sharded / "checkpoint-2" / "optimizer_0").glob("*.distcp")} == {
        "__0_0.distcp",
        "__1_0.distcp",
    }


def test_sharded_training_resumes_to_the_same_weights(run, sharded, fsdp_environment, tmp_path):
    shutil.copytree(sharded / "checkpoint-4", tmp_path / "out" / "checkpoint-4")
    options = ["--use_cpu", "false", "--resume_from_checkpoint"]
    resumed = run(2, *options, environment=fsdp_environment, folder=tmp_path / "out")
    weights, others = load_file(resumed / "model.safetensors"), load_file(sharded / "model.safetensors")
    assert all(torch.equal(weights[name], others[name]) for name in others)


def test_sharded_model_is_saved_whole_with_its_code(sharded):
    """As is a checkpoint's, once its shards are merged."""
    config = json.loads((sharded / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_mosaic.MosaicForCausalLM"
    assert not list(sharded.glob("_fsdp*"))
    merged = sharded.parent / "merged"
    merge_fsdp_weights(str(sharded / "checkpoint-6" / "pytorch_model_fsdp_0"), str(merged))
    shutil.copy(sharded / "config.json", merged)
    ids = torch.arange(60)[None]
    logits = [AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in (sharded, merged)]
    assert torch.equal(*logits)


def launch(*command):
    """Runs a launcher, which ends its processes when it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=250)
    finally:
        process.terminate()
        process.wait(40)
    assert process.returncode == 0, printed


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["accelerate.commands.launch", "--config_file", CPU_PROCESSES],
        ["torch.distributed.run", "--standalone", "--nproc-per-node", 2],
    ],
    ids=["accelerate", "torchrun"],
)
def test_launchers(exact_recipe, alone, tmp_path, launcher):
    options = ["--output_dir", tmp_path, "--per_device_train_batch_size", 2, "--use_cpu"]
    launch(*launcher, SCRIPTS / "train.py", exact_recipe, *options)
    assert_same_training(tmp_path, alone)


@pytest.mark.slow
def test_launcher_of_one_process(exact_recipe, alone, tmp_path):
    file = CPU_PROCESSES.with_name("cpu.yaml")
    command = ["accelerate.commands.launch", "--config_file", file, SCRIPTS / "train.py", exact_recipe]
    launch(*command, "--output_dir", tmp_path)
    assert_same_training(tmp_path, alone)


def test_processes_that_would_train_alone_are_refused(exact_recipe, tmp_path):
    if torch.accelerator.is_available():
        pytest.skip("with an accelerator they train together on it")
    argv = [exact_recipe, "--output_dir", tmp_path / "out", "--use_cpu", "false"]
    assert 2 in run_group(argv, tmp_path / "log", 2)
    assert "train: error: use_cpu must be true: 2 processes" in (tmp_path / "log").read_text()
    assert not (tmp_path / "out").exists()

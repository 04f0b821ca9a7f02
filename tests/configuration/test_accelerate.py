"""The shipped files for `accelerate launch`, read by its own parser."""

import os
from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from transformers import AutoConfig, AutoModelForCausalLM

import modeling_mosaic  # noqa: F401

FOLDER = Path(__file__).parents[2] / "configuration" / "accelerate"
FILES = sorted(FOLDER.glob("*.yaml"))


def launch_arguments(name, *options):
    argv = ["--config_file", str(FOLDER / name), *options, "scripts/train.py", "RECIPE"]
    return _validate_launch_command(launch_command_parser().parse_args(argv))[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_are_read(file):
    config = load_config_from_file(str(file))
    assert config.num_processes % config.num_machines == 0
    # The recipe chooses it.
    assert config.mixed_precision == "no"
    assert f"--config_file configuration/accelerate/{file.name}" in file.read_text()


@pytest.mark.parametrize(
    ("name", "kind", "num_processes", "use_cpu"),
    [
        ("cpu.yaml", DistributedType.NO, 1, True),
        ("cpu-processes.yaml", DistributedType.MULTI_GPU, 2, True),
        ("ddp.yaml", DistributedType.MULTI_GPU, 8, False),
        ("fsdp2.yaml", DistributedType.FSDP, 8, False),
        ("deepspeed-zero3.yaml", DistributedType.DEEPSPEED, 8, False),
        ("machines.yaml", DistributedType.MULTI_GPU, 16, False),
    ],
)
def test_kinds(name, kind, num_processes, use_cpu):
    config = load_config_from_file(str(FOLDER / name))
    assert (config.distributed_type, config.num_processes, config.use_cpu) == (kind, num_processes, use_cpu)
    assert len(FILES) == 6


def test_machines():
    arguments = launch_arguments("machines.yaml", "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    prepare_multi_gpu_env(arguments)
    assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 1)
    assert (arguments.rdzv_backend, arguments.rdzv_endpoint) == ("static", "10.0.0.1:29500")


def test_fsdp_shards_block_by_block(monkeypatch):
    environment = prepare_multi_gpu_env(launch_arguments("fsdp2.yaml", "--main_process_port", "0"))
    for name, value in environment.items():
        if name not in os.environ:
            monkeypatch.setenv(name, value)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    config = AutoConfig.for_model(
        "mosaic", vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    plugin.set_auto_wrap_policy(AutoModelForCausalLM.from_config(config))
    assert {kind.__name__ for kind in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]} == {
        "MosaicBlock"
    }
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert not plugin.cpu_ram_efficient_loading and not plugin.activation_checkpointing


def test_deepspeed():
    arguments = launch_arguments("deepspeed-zero3.yaml", "--main_process_port", "0")
    arguments.deepspeed_fields_from_accelerate_config = ""
    _, environment = prepare_deepspeed_cmd_env(arguments)
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    # Left to the Trainer.
    for name in ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"):
        assert not environment.get(name, "auto").isdigit()

import random

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

import modeling_mosaic  # noqa: F401
from mosaic_lab.training.speed import PEAKS, count_operations, find_peak

LAYERS, WIDTH, TIME = 2, 64, 96
SHAPE = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": 4, "vocab_size": 256}
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
# Options, attentions per layer, and the share that leaky averages in chunks may add.
KINDS = {
    "gpt2": ({}, 1, 0),
    "llama": ({"intermediate_size": 128}, 1, 0),
    "mosaic": ({}, 1, 0.03),
    "mosaic_v2": ({}, 2, 0.03),
}


def build(kind, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE, **SPECIAL, **KINDS[kind][0])
    return AutoModelForCausalLM.from_config(config, **options)


def random_state():
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_of_products(kind):
    """6 a weight and token, the embedding only as the head, and 12 a layer, channel and pair of tokens."""
    model = build(kind)
    embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings().weight
    multiplied = {head} | {weight for weight in model.parameters() if weight.dim() > 1} - set(embeddings)
    _, num_attentions, tolerance = KINDS[kind]
    expected = 6 * TIME * sum(weight.numel() for weight in multiplied)
    expected += 12 * LAYERS * num_attentions * WIDTH * TIME**2
    assert expected <= count_operations(model, TIME) <= (1 + tolerance) * expected


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_those_of_a_real_step(kind):
    """With weights and in eager attention; counting leaves the model and the random numbers as they were."""
    model = build(kind)
    before, config = random_state(), model.config.to_dict()
    counted = count_operations(model, TIME)
    assert random_state() == before
    assert model.config.to_dict() == config and model.config._attn_implementation == "sdpa"
    eager, ids = build(kind, attn_implementation="eager"), torch.randint(256, (3, TIME))
    with FlopCounterMode(display=False) as counter:
        eager(input_ids=ids, labels=ids).loss.backward()
    assert counter.get_total_flops() == 3 * counted


def test_activation_checkpointing_and_unknown_models_do_not_count():
    model = build("mosaic")
    counted = count_operations(model, TIME)
    model.activation_checkpointing_enable()
    assert count_operations(model, TIME) == counted
    assert count_operations(torch.nn.Linear(2, 2), TIME) is None


def test_peak_of_a_cpu_is_that_of_a_product():
    before = random_state()
    peak = find_peak(torch.device("cpu"), torch.float32)
    assert random_state() == before
    # From a core of decades ago to a rack of them.
    assert 1e8 < peak < 1e15


def test_peaks_of_gpus(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert find_peak(cuda, torch.bfloat16) == 312e12 and find_peak(cuda, torch.float32) == 19.5e12
    precision = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        assert find_peak(cuda, torch.float32) == 156e12
    finally:
        torch.backends.cuda.matmul.fp32_precision = precision
    assert find_peak(cuda, torch.float64) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB MIG 1g.10gb")
    assert find_peak(cuda, torch.bfloat16) is None and find_peak(torch.device("mps"), torch.float32) is None
    assert all(half >= tf32 >= full for half, tf32, full in PEAKS.values())

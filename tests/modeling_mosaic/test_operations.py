"""How many operations the model dispatches, which eager mode pays for whatever the hardware.

Counted as the benchmark does, see `mosaic_lab.benchmark.operations`: `aten::` events of the profiler, of a forward
pass alone. What a layer costs is the difference between a model of three layers and one of two, at the size of
`configuration/benchmark/cpu-small.yaml`, whose GPT-2 is counted beside it.
"""

import pytest
import torch

from mosaic_lab.benchmark.models import build_gpt2, build_mosaic
from mosaic_lab.benchmark.operations import count_decoding, count_operations
from mosaic_lab.benchmark.options import BenchmarkArguments

# At most so many operations per layer (torch 2.13, transformers 5.24), and so many times GPT-2's in all.
LAYER = {"decode 1": 326, "decode 8": 339, "prefill 512": 641, "train 512": 1466}
OVER_GPT2 = {"decode 1": 2.35, "decode 8": 2.25, "prefill 512": 4.15, "train 512": 3.4}
PROMPT = 64


def train_step(model, tokens):
    model.train()
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    model.zero_grad()


@torch.no_grad()
def prefill(model, tokens):
    model(input_ids=tokens, use_cache=True, logits_to_keep=1)


def count(task, model):
    name, size = task.split()
    if name == "decode":
        return count_decoding(model, torch.ones(int(size), PROMPT, dtype=torch.long))
    tokens = torch.ones(1, int(size), dtype=torch.long)
    return count_operations(lambda: (train_step if name == "train" else prefill)(model, tokens))


@pytest.mark.parametrize("task", LAYER)
def test_operations(task):
    ours, gpt2 = {}, {}
    for layers in (2, 3):
        options = BenchmarkArguments(num_hidden_layers=layers, vocab_size=100)
        ours[layers] = count(task, build_mosaic(options, 1024, 64).eval())
        gpt2[layers] = count(task, build_gpt2(options, 1024).eval())
    layer, layer_of_gpt2 = ours[3] - ours[2], gpt2[3] - gpt2[2]
    counts = f"{ours} operations by layers, {gpt2} for GPT-2; {layer} and {layer_of_gpt2} per layer"
    assert layer <= LAYER[task], counts
    assert ours[3] <= OVER_GPT2[task] * gpt2[3], counts


def test_counts_are_the_same_every_time():
    model = build_mosaic(BenchmarkArguments(num_hidden_layers=1, vocab_size=100), 1024, 64).eval()
    assert count("decode 8", model) == count("decode 8", model)

"""How many operations Memory Mosaics v2 dispatch, beside a Llama of equally many parameters.

Counted as in `test_operations.py`. The text is longer than the short-term memory and the delay.
"""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.loss.loss_utils import ForCausalLMLoss

from modeling_mosaic import MosaicV2Config, MosaicV2ForCausalLM
from mosaic_lab.benchmark.operations import count_decoding, count_operations

# At most so many operations per layer with torch 2.13 and transformers 5.24, and in all at most so many times
# those of the Llama, whose layers take 193, 207 and 555. A layer has two memories, each with five linear
# layers, an average and an attention of its own. To be lowered with what the model saves.
LAYER = {"decode": 432, "prefill": 923, "train": 2077}
OVER_LLAMA = {"decode": 2.2, "prefill": 4.3, "train": 3.6}
COMMON = dict(vocab_size=100, hidden_size=256, num_attention_heads=8, bos_token_id=0, eos_token_id=None)


def build_pair(num_hidden_layers):
    ours = MosaicV2ForCausalLM(
        MosaicV2Config(
            **COMMON,
            num_hidden_layers=num_hidden_layers,
            intermediate_size=512,
            long_memory_delay_range=(64, 64),
        )
    )
    llama = LlamaForCausalLM(
        LlamaConfig(**COMMON, num_hidden_layers=num_hidden_layers, intermediate_size=684)
    )
    assert ours.num_parameters() == pytest.approx(llama.num_parameters(), rel=0.01)
    return ours, llama


def count(task, model):
    model.loss_function = ForCausalLMLoss
    model.train(task == "train")
    tokens = torch.ones(1, 512, dtype=torch.long)
    if task == "decode":
        return count_decoding(model, tokens)

    def run():
        with torch.set_grad_enabled(task == "train"):
            if task == "train":
                model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
                model.zero_grad()
            else:
                model(input_ids=tokens, use_cache=True, logits_to_keep=1)

    return count_operations(run)


@pytest.mark.parametrize("task", LAYER)
def test_operations(task):
    page = (Path(__file__).parents[2] / "docs" / "v2.md").read_text()
    assert f" {LAYER[task]:,} " in page
    ours, llama = zip(
        *([count(task, model) for model in build_pair(layers)] for layers in (3, 4)), strict=True
    )
    counts = f"operations of 3 and 4 layers: {ours}, of Llama: {llama}"
    assert ours[1] - ours[0] <= LAYER[task], counts
    assert ours[1] <= OVER_LLAMA[task] * llama[1], counts

"""Losses of training steps, recorded once: a change for speed's sake must not change what is computed.

`python tests/modeling_mosaic/test_golden_losses.py` records them anew, for a change that means to.
"""

import json
from pathlib import Path

import pytest
import torch

from modeling_mosaic import MosaicConfig, MosaicForCausalLM

GOLDEN = Path(__file__).with_name("golden_losses.json")
NUM_STEPS = 25
BATCH, TIME, VOCAB = 3, 150, 61


def left_padding(inputs):
    inputs["attention_mask"] = (torch.arange(TIME) >= torch.tensor([[0], [17], [90]])).long()
    inputs["labels"] = inputs["labels"].masked_fill(inputs["attention_mask"] == 0, -100)


def packing(inputs):
    inputs["position_ids"] = torch.stack([torch.arange(TIME) % length for length in (150, 41, 70)])


CASES = {
    "sdpa": ({}, None),
    "eager": ({"attn_implementation": "eager"}, None),
    "left-padded": ({}, left_padding),
    "packed": ({}, packing),
    "biases, banks, more persistent heads": (
        dict(use_bias=True, num_persistent_banks=2, num_persistent_heads=8, persistent_memory_size=30),
        None,
    ),
    "untied, unscaled logits": ({"tie_word_embeddings": False, "logit_scale": 1.0}, None),
}


def train(fields, change_inputs):
    """The loss of each step of AdamW on random tokens, of which every other one repeats that before it."""
    torch.manual_seed(0)
    config = MosaicConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        bos_token_id=0,
        eos_token_id=None,
        **{"logit_scale": None, **fields},
    )
    model = MosaicForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(NUM_STEPS):
        tokens = torch.randint(1, VOCAB, (BATCH, TIME // 2)).repeat_interleave(2, -1)
        inputs = {"input_ids": tokens, "labels": tokens}
        if change_inputs is not None:
            change_inputs(inputs)
        loss = model(**inputs, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_recorded_ones(case):
    golden = json.loads(GOLDEN.read_text())[case]
    torch.testing.assert_close(torch.tensor(train(*CASES[case])), torch.tensor(golden), rtol=0, atol=1e-5)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({case: train(*CASES[case]) for case in CASES}, indent=1) + "\n")

"""Random texts to read into memories, and what continues them."""

import torch

from modeling_mosaic.compatibility import CACHE_NAME
from modeling_mosaic.memories.reading import TokenisedText


def draw_text(random, name, size):
    ids = [random.randint(1, 60) for _ in range(size)]
    return TokenisedText(name, ids, [(number, number + 1) for number in range(size)])


def given(memory, rows=1):
    """What `generate()` and pipelines take, by the name of this release."""
    return {CACHE_NAME: memory.to_cache(rows)}


def continue_after(model, memory, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), cache=memory.to_cache()).logits[0]


def list_tensors(memory):
    """All tensors of a memory."""
    return [memory.keys, memory.values, memory.tokens, *memory.window, *memory.states, *memory.beginning]

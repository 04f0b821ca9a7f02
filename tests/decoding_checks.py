"""Decoding as the definition has it, and the ways in which `generate()` is to give the same."""

import torch
from transformers import CompileConfig

# `generate()` returns logits and scores in float32, whatever the model's precision.
EPS = torch.finfo(torch.float32).eps
GREEDY = dict(max_new_tokens=20, do_sample=False, return_dict_in_generate=True, output_logits=True)


def plain_greedy(model, row, steps=20):
    """Decoding as the definition has it: the whole text again for every token, without mask and cache."""
    logits = []
    with torch.no_grad():
        for _ in range(steps):
            logits.append(model(row, use_cache=False).logits[:, -1])
            row = torch.cat([row, logits[-1].argmax(-1, keepdim=True)], 1)
    return row, torch.stack(logits, 1)


def assert_plain(outputs, model, row, index=0):
    sequence, logits = plain_greedy(model, row)
    assert torch.equal(outputs.sequences[index, -20:], sequence[0, -20:])
    ours = torch.stack(outputs.logits, 1)[index]
    torch.testing.assert_close(ours.double(), logits[0, -len(ours) :], rtol=EPS, atol=1e-10)


def compiled(mode="default"):
    config = CompileConfig(fullgraph=True, mode=mode)
    config._compile_all_devices = True
    return config


WAYS = {
    "dynamic cache": {},
    "without cache": dict(use_cache=False),
    "prompt lookup": dict(prompt_lookup_num_tokens=3),
    "static cache": dict(cache_implementation="static"),
    "static cache compiled": dict(cache_implementation="static", compile_config=compiled()),
}

"""Tells whether a memory was read by this model or by another one."""

import hashlib

import torch
from transformers import PreTrainedModel

# Entries of each parameter that are looked at, evenly spaced: training changes nearly all of them.
NUM_ENTRIES = 4096
# What pairs depend on besides the parameters, by kind of model.
_FIELDS = {
    "mosaic": ("num_attention_heads", "num_persistent_heads", "max_log_key_scale", "layer_norm_eps"),
    "mosaic_v2": ("num_attention_heads", "short_memory_size", "long_memory_delay", "rms_norm_eps"),
}


def fingerprint(model: PreTrainedModel) -> str:
    """A digest of what the pairs of a memory depend on: the body's config and parameters.

    It is meant against mistakes, not against malice: of large parameters it samples 4,096 entries each, so
    that it takes milliseconds whatever the size. Entries are rounded to bfloat16 first, so that float32,
    float64 and bfloat16 copies of a model have the same; float16 rounds to other values, and quantised
    weights are others.

    Returns:
        `str`: 16 hexadecimal digits.

    Raises:
        ValueError: for a model of another kind.
    """
    body, kind = model.base_model, model.config.model_type
    if kind not in _FIELDS:
        raise ValueError(f"model must be a Memory Mosaic, not {kind}")
    digest = hashlib.sha256(repr([float(getattr(body.config, name)) for name in _FIELDS[kind]]).encode())
    for name, parameter in sorted(body.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        entries = parameter.detach().flatten()
        entries = entries[:: -(-len(entries) // NUM_ENTRIES)].to(torch.bfloat16)
        digest.update(entries.cpu().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]

"""Fingerprints of texts and models, by which a result says what it was made from."""

import hashlib
from collections.abc import Iterable

import torch
from torch import nn


def hash_texts(texts: Iterable[str]) -> str:
    """SHA-256 over the texts in order, each as UTF-8 and ended by a zero byte."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8") + b"\0")
    return digest.hexdigest()


def hash_weights(model: nn.Module) -> str:
    """SHA-256 over the names and the bytes of all parameters and buffers that are saved with a model."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + b"\0")
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()

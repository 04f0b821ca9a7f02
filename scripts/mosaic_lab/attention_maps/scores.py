"""Attention scores of the last position of a sequence, in memory that grows with the context only linearly.

Shapes: B batch, T context, N layers, H heads. Column i of the scores is position i; in a Memory Mosaic it is
the pair i, and column T - 1 is 0, because the value of pair T - 1 is still to come.
"""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from mosaic_lab.attention_maps.windows import Windows
from mosaic_lab.core.errors import InputError

# Tokens at a time where attention is eager, which holds the scores of all of them.
EAGER_CHUNK = 64


@torch.inference_mode()
def read_last_scores(model: PreTrainedModel, ids_BT: torch.Tensor, chunk_size: int | None) -> torch.Tensor:
    """What the last position of each sequence attends to.

    All tokens but the last fill the model's cache, by sdpa if the model has it; then the last one alone asks,
    by eager attention, which returns its weights. Leaves the model with eager attention.

    Args:
        model (`PreTrainedModel`): a causal language model in evaluation mode.
        ids_BT (`torch.Tensor` of shape `(batch, context)`): token ids on the model's device, two or more.
        chunk_size (`int`, *optional*): tokens of a sequence that go through the model together; by default
            all with sdpa, else 64.

    Returns:
        `torch.Tensor`: float64 `(batch, layers, heads, context)` on the CPU; sums to 1 over the context.

    Raises:
        InputError: if the model returns no scores over the whole context.

    Costs O(B T) memory, and O(B H chunk_size T) without sdpa. Equals the last row of the scores of one eager
    forward of whole sequences.
    """
    # The head's logits are not needed.
    body = model.base_model
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    chunk_size = chunk_size or (ids_BT.shape[1] if model._supports_sdpa else EAGER_CHUNK)
    cache = None
    for chunk_Bt in ids_BT[:, :-1].split(chunk_size, 1):
        cache = _read(body, chunk_Bt, cache).get("past_key_values")
    model.set_attn_implementation("eager")
    weights = _read(body, ids_BT[:, -1:], cache, output_attentions=True).get("attentions")
    if not weights or any(weight.shape[-1] != ids_BT.shape[1] for weight in weights):
        raise InputError(
            f"{model.config.model_type}: returns no attention scores over all {ids_BT.shape[1]} positions"
        )
    return torch.stack([weight_BH1T[:, :, 0].cpu().double() for weight_BH1T in weights], 1)


def _read(body: PreTrainedModel, ids_BT: torch.Tensor, cache: Any, **options):
    try:
        return body(input_ids=ids_BT, past_key_values=cache, use_cache=True, return_dict=True, **options)
    except TypeError as error:
        raise InputError(f"{body.config.model_type}: has no cache of keys and values: {error}") from error


def average_scores(
    model: PreTrainedModel, windows: Windows, batch_size: int, chunk_size: int | None, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over sequences of the scores of their last position.

    Args:
        model, chunk_size: as for [`read_last_scores`].
        windows (`Windows`): the sequences.
        batch_size (`int`): sequences that go through the model together.
        label (`str`): in front of the progress bar.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: both float64 `(layers, heads, context)`.
    """
    total, squares = 0.0, 0.0
    with tqdm(total=len(windows), desc=label, unit="sequence") as progress:
        for first in range(0, len(windows), batch_size):
            ids_BT = torch.from_numpy(windows.batch(first, batch_size)).to(model.device)
            score_BNHT = read_last_scores(model, ids_BT, chunk_size)
            total += score_BNHT.sum(0)
            squares += score_BNHT.square().sum(0)
            progress.update(len(ids_BT))
    mean_NHT = total / len(windows)
    variance_NHT = (squares / len(windows) - mean_NHT.square()).clamp(min=0)
    return mean_NHT.numpy(), variance_NHT.sqrt().numpy()

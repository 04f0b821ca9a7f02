"""What copying hangs on: the losses of repeated segments with the matching pairs, or others, forgotten.

Shapes: N rows of two equal segments of S tokens, T = 2 S.
"""

import numpy as np
import torch
from torch.nn import functional as F
from transformers import GPT2LMHeadModel, PreTrainedModel

from modeling_mosaic import MemoryEdit

# Places of the second segment at which the pair that matches is forgotten.
NUM_PLACES = 8


def repeat_segments(frequency_V: np.ndarray, num_segments: int, segment_size: int, seed: int) -> torch.Tensor:
    """Rows `(segments, 2 * size)` of random tokens, drawn by frequency, each said twice."""
    chance = np.random.default_rng(seed)
    segments = chance.choice(
        len(frequency_V), (num_segments, segment_size), p=frequency_V / frequency_V.sum()
    )
    return torch.from_numpy(np.concatenate([segments, segments], 1))


@torch.no_grad()
def measure_copying(model: PreTrainedModel, rows_NT: torch.Tensor) -> dict[str, float]:
    """Losses on a segment said the first and the second time, and the second with something forgotten.

    Forgotten is the pair that holds what came after the present token before: of query p in the second
    segment, pair p - S in a mosaic, whose value peeks at the next token; in a transformer the key and the
    value of token p - S + 1, in all heads of all layers; or, for comparison, one from half-way back.

    Returns:
        `dict`: `first` and `second` losses at the same places, and `forgotten` and `other`.
    """
    rows_NT = rows_NT.to(model.device)
    size = rows_NT.shape[1] // 2
    places = np.linspace(size + 2, 2 * size - 2, NUM_PLACES).astype(int)
    losses_NT = _losses(model, rows_NT)
    found = {"first": losses_NT[:, places - size].mean(), "second": losses_NT[:, places].mean()}
    forget = _forget_in_gpt2 if isinstance(model, GPT2LMHeadModel) else _forget_in_mosaic
    for name, distance in (("forgotten", size), ("other", size // 2)):
        losses = [forget(model, rows_NT, place, place - distance)[:, place].mean() for place in places]
        found[name] = torch.stack(losses).mean()
    return {name: float(loss) for name, loss in found.items()}


def _losses(model: PreTrainedModel, rows_NT: torch.Tensor, **inputs) -> torch.Tensor:
    """The loss of the token after each one, `(rows, time - 1)`."""
    logits = model(rows_NT, use_cache=False, **inputs).logits[:, :-1].float()
    return F.cross_entropy(logits.transpose(1, 2), rows_NT[:, 1:], reduction="none")


def _forget_in_mosaic(model: PreTrainedModel, rows_NT: torch.Tensor, place: int, pair: int) -> torch.Tensor:
    with MemoryEdit().delete(pairs=[int(pair)]).applied(model):
        return _losses(model, rows_NT)


def _forget_in_gpt2(model: PreTrainedModel, rows_NT: torch.Tensor, place: int, pair: int) -> torch.Tensor:
    """The same for the position that holds what the pair's token was followed by; it still sees itself."""
    time = rows_NT.shape[1]
    visible_TT = torch.ones(time, time, dtype=torch.bool, device=rows_NT.device).tril()
    visible_TT[pair + 2 :, pair + 1] = False
    return _losses(model, rows_NT, attention_mask=visible_TT.expand(len(rows_NT), 1, -1, -1))

"""Reads a sequence in parts, apart from each other, and continues what the merged memories hold.

Shapes: T tokens of the rest, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from modeling_mosaic import MosaicMemory, read_tokens
from modeling_mosaic.memories.reading import TokenisedText


class Way(NamedTuple):
    """What is in memory: all parts merged, the last one alone, or nothing (0 parts)."""

    memory: str
    num_parts: int


MERGED, ALONE, NOTHING = "merged", "alone", "nothing"


def list_ways(num_parts: Sequence[int]) -> list[Way]:
    """All ways for these numbers of parts; one part is the sequence read in a row."""
    merged = [Way(MERGED, number) for number in num_parts]
    return [*merged, *(Way(ALONE, number) for number in num_parts if number > 1), Way(NOTHING, 0)]


def predict_rest(
    model: PreTrainedModel, ids: Sequence[int], edges: Sequence[int], num_parts: Sequence[int]
) -> Iterator[tuple[Way, np.ndarray]]:
    """Predicts what follows a sequence, read in any of several ways.

    Args:
        model (`PreTrainedModel`): a Memory Mosaic.
        ids (`Sequence[int]`): all tokens.
        edges (`Sequence[int]`): where the smallest parts begin, and where the rest does.
        num_parts (`Sequence[int]`): numbers of parts, which divide that of the smallest ones.

    Yields:
        `tuple`: a way, and the logits `(time, vocab)` after each token of the rest.
    """
    rest = ids[edges[-1] :]
    for number in num_parts:
        cuts = edges[:: (len(edges) - 1) // number]
        texts = [TokenisedText(f"part {i}", ids[start:end]) for i, (start, end) in enumerate(pairwise(cuts))]
        memory = read_tokens(model, texts, batch_size=number)
        yield Way(MERGED, number), predict(model, rest, memory)
        if number > 1:
            yield Way(ALONE, number), predict(model, rest, memory.keep(texts[-1].name))
    yield Way(NOTHING, 0), predict(model, rest, None)


@torch.no_grad()
def predict(model: PreTrainedModel, ids: Sequence[int], memory: MosaicMemory | None) -> np.ndarray:
    """Logits `(time, vocab)` after each token that follows a memory, float32."""
    ids_1T = torch.tensor([list(ids)], device=model.device)
    logits = model(ids_1T, cache=None if memory is None else memory.to_cache()).logits
    return logits[0].float().cpu().numpy()
